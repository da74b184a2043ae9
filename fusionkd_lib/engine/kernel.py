"""The kernel of a run: ipykernel's own, without the port that receives what its forks print."""

from ipykernel.iostream import IOPubThread
from ipykernel.kernelapp import launch_new_instance


def _hear_no_forks(thread: IOPubThread) -> None:
    thread._pipe_flag = False  # as ipykernel itself does where it finds no port


if __name__ == "__main__":
    IOPubThread._setup_pipe_in = _hear_no_forks
    launch_new_instance()
