#!/usr/bin/python3
"""DHCP (RFC 2131, 2132) and TFTP (RFC 1350, 2347, 2348, 2349) for one client that boots from the
network. Prints what it does, a line for each step. Run in a network namespace:

    pxe_server.py INTERFACE SERVER-ADDRESS CLIENT-ADDRESS FILE
"""
import os
import select
import socket
import struct
import sys

DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
RRQ, DATA, TFTP_ACK, TFTP_ERROR, OACK = 1, 3, 4, 5, 6
COOKIE = b"\x63\x82\x53\x63"


def say(*words):
	print(*words, flush=True)


def options_of(data):
	found, at = {}, 240
	while at < len(data) and data[at] != 255:
		if data[at] == 0:
			at += 1
			continue
		found[data[at]] = data[at + 2:at + 2 + data[at + 1]]
		at += 2 + data[at + 1]
	return found


def dhcp(sock, server, client, name):
	data = sock.recv(2048)
	if len(data) < 240 or data[0] != 1 or data[236:240] != COOKIE:
		return
	options = options_of(data)
	kind = options.get(53, b"\0")[0]
	if kind not in (DISCOVER, REQUEST):
		return
	say("DHCP", "discover" if kind == DISCOVER else "request",
	    options.get(60, b"").decode("ascii", "replace"), data[28:34].hex(":"))
	address = socket.inet_aton(server)
	reply = struct.pack("!BBBB4sHH4s4s4s4s16s64s128s", 2, 1, 6, 0, data[4:8], 0, 0x8000, bytes(4),
			    socket.inet_aton(client), address, bytes(4), data[28:44], b"", name.encode())
	reply += COOKIE + bytes([53, 1, OFFER if kind == DISCOVER else ACK])
	for code, value in ((54, address), (51, struct.pack("!I", 3600)), (1, b"\xff\xff\xff\0"),
			    (3, address), (66, server.encode()), (67, name.encode() + b"\0")):
		reply += bytes([code, len(value)]) + value
	sock.sendto(reply + b"\xff", ("255.255.255.255", 68))


def answer_of(sock, message):
	"""Sends until something comes back; None if nothing does."""
	for _ in range(20):
		sock.send(message)
		if select.select([sock], [], [], 2)[0]:
			return sock.recv(2048)
	return None


def tftp(data, peer, server, content):
	words = data[2:].split(b"\0")
	if struct.unpack("!H", data[:2])[0] != RRQ or len(words) < 3:
		return
	asked = {words[i].lower(): words[i + 1] for i in range(2, len(words) - 2, 2)}
	say("TFTP read", words[0].decode(), " ".join(k.decode() for k in asked))
	block = 512
	granted = b""
	if b"blksize" in asked:
		block = min(max(int(asked[b"blksize"]), 8), 1400)
		granted += b"blksize\0%d\0" % block
	if b"tsize" in asked:
		granted += b"tsize\0%d\0" % len(content)
	with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
		sock.bind((server, 0))
		sock.connect(peer)
		if granted:
			answer = answer_of(sock, struct.pack("!H", OACK) + granted)
			if answer is None or answer[:4] != struct.pack("!HH", TFTP_ACK, 0):
				return	# wanted to know the size only
		for n in range(len(content) // block + 1):
			want = struct.pack("!HH", TFTP_ACK, (n + 1) & 0xffff)
			part = content[n * block:(n + 1) * block]
			answer = answer_of(sock, struct.pack("!HH", DATA, (n + 1) & 0xffff) + part)
			while answer is not None and answer[:4] != want:
				if answer[:2] == struct.pack("!H", TFTP_ERROR):
					return
				answer = sock.recv(2048)	# an acknowledgement of before
			if answer is None:
				return
	say("TFTP sent", len(content))


def main():
	interface, server, client, path = sys.argv[1:]
	with open(path, "rb") as file:
		content = file.read()
	lease = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	lease.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
	lease.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
	lease.bind(("", 67))
	files = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	files.bind((server, 69))
	say("ready")
	while True:
		for sock in select.select([lease, files], [], [])[0]:
			if sock is lease:
				dhcp(lease, server, client, os.path.basename(path))
			else:
				data, peer = files.recvfrom(2048)
				tftp(data, peer, server, content)


if __name__ == "__main__":
	main()
