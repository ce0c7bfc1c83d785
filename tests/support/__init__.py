"""What several test folders share: real runtimes started and stopped."""
