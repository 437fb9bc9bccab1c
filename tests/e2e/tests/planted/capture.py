"""Writes every packet of this network namespace into a file: capture.py FILE. Says `ready` once it listens."""
import socket, sys

EVERYTHING = 3
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    print("ready", flush=True)
    while True:
        file.write(listener.recv(1 << 17))
