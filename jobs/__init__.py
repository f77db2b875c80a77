"""What a job is, where it lives, how it may change.

`states` says which moves exist, `records` the tables, `store` every query and guarded change,
`artifacts`, `s3_artifacts` and `storage` where files go, `doorbell` how workers are woken,
`settings`, `connections` and `logs` what a process needs to take part. No web, no torch.
"""
