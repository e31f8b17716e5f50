"""What any job needs of a machine and a bucket: files, copying, downloads, logs, errors, signals, parallel work.

Nothing in here knows a setting of this job, a photo or a model.
"""
