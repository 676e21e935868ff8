"""What an atlas is for, on files: masks or observations in; masks, meshes, landmarks, labels and scores out."""
