"""Where dense models come from: torchvision's classifiers and the papers' own nets."""
