"""What proofs are set up with: whole systems, small disks, recordings, raw folders."""
