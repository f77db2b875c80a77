"""Turns a job row into a pruned model.

`app` is the Celery application, `supervisor` claims jobs and watches over a child process, `child`
is that process and the only one that loads torch, `sweeper` takes back what dead workers held,
`presence` tells that this one is there.
"""
