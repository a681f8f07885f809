from relin.cli import main

main()
