"""The studies that come with relin, a folder each."""
