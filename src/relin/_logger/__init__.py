"""Where records go as they are made: files and experiment trackers."""

from relin._logger._base import AbstractLogger as AbstractLogger
from relin._logger._journal import Journal as Journal
from relin._logger._json_lines import JSONLines as JSONLines
from relin._logger._mlflow import MLflow as MLflow
from relin._logger._tensorboard import TensorBoard as TensorBoard
from relin._logger._together import Log as Log, Loggers as Loggers
from relin._logger._wandb import WeightsAndBiases as WeightsAndBiases
