"""Reports: figures with the data behind them, and self-contained HTML pages."""
