"""The training job: a bucket of photos with boxes in, a trained, evaluated and exported detector out."""
