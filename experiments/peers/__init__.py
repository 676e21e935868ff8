"""What others reach: DIF-Net at its authors' settings, rows that learn no network, surfaces without an atlas."""
