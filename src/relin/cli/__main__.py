from relin.cli import main

if __name__ == "__main__":  # tools that read documentation import every module
    main()
