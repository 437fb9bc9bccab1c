"""Calls the API as a program does, and stays with what it got: hold.py PORT."""
import os, sys, time, urllib.request

request = urllib.request.Request(
    f"https://api.example.com:{sys.argv[1]}/v1/items",
    headers={"Authorization": "Bearer " + os.environ["API_TOKEN"]},
)
answer = urllib.request.urlopen(request)
kept = [answer, answer.read(), os.environ["CONTROL"].encode() * 2]
with open(os.path.expanduser("~/held"), "wb") as file:
    file.write(kept[1])
time.sleep(600)
