"""One story that aioice tells through a server: `aioice_stories.py STORY PORT TLS-PORT AUTHORITY USER PASSWORD`.

Ends well when every step was as it should be, else with what was not. Waits without an end: who starts it ends it.
"""

import asyncio
import os
import ssl
import sys

from aioice import Connection, TransportPolicy, stun, turn

STORY, PORT, TLS_PORT, AUTHORITY, USER, PASSWORD = sys.argv[1:]
HOSTS = ["127.0.0.1", "::1"]
TRANSPORTS = ["udp", "tcp", "tls"]
TRUST = ssl.create_default_context(cafile=AUTHORITY)


class Ear(asyncio.DatagramProtocol):
    """Keeps what it hears."""

    def __init__(self):
        self.heard = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, address):
        self.heard.put_nowait((data, address[:2]))

    def connection_lost(self, _):
        self.lost.done() or self.lost.set_result(None)


def server(over, host):
    return host, int(TLS_PORT if over == "tls" else PORT)


async def allocate(over, host):
    stream = "udp" if over == "udp" else "tcp"
    tls = TRUST if over == "tls" else False
    return await turn.create_turn_endpoint(Ear, server(over, host), USER, PASSWORD, transport=stream, ssl=tls)


async def data(over, host):
    """A peer gets what is sent on a channel and answers, in lengths with and without padding; then all is given back."""
    client, ear = await allocate(over, host)
    relayed = client.get_extra_info("sockname")
    # This client cannot ask for IPv6 relays.
    peer, far = await asyncio.get_running_loop().create_datagram_endpoint(Ear, local_addr=("127.0.0.1", 0))
    address = peer.get_extra_info("sockname")
    for length in [1, 2, 3, 4, 5, 160, 1201, 8000]:
        sent = bytes([length % 256]) * length
        client.sendto(sent, address)
        assert await far.heard.get() == (sent, relayed)
        peer.sendto(sent, relayed)
        assert await ear.heard.get() == (sent, address)
    peer.close()
    client.close()
    await ear.lost


async def again(over):
    """The same credential serves twenty times in a row."""
    for _ in range(20):
        client, ear = await allocate(over, HOSTS[0])
        client.close()
        await ear.lost


async def call(over, answered_over):
    """Two agents with relay addresses alone find each other and talk."""

    async def agent(over, is_controlling):
        agent = Connection(
            is_controlling,
            turn_server=server(over, HOSTS[0]),
            turn_username=USER,
            turn_password=PASSWORD,
            turn_transport="udp" if over == "udp" else "tcp",
            turn_ssl=TRUST if over == "tls" else False,
            transport_policy=TransportPolicy.RELAY,
        )
        await agent.gather_candidates()
        assert [candidate.type for candidate in agent.local_candidates] == ["relay"], agent.local_candidates
        return agent

    async def introduce(one, other):
        one.remote_username, one.remote_password = other.local_username, other.local_password
        for candidate in [*other.local_candidates, None]:
            await one.add_remote_candidate(candidate)

    caller, callee = await agent(over, True), await agent(answered_over, False)
    await introduce(caller, callee)
    await introduce(callee, caller)
    await asyncio.gather(caller.connect(), callee.connect())
    for number in range(20):
        sent = b"%d from %s to %s" % (number, over.encode(), answered_over.encode())
        await caller.send(sent)
        assert await callee.recv() == sent
        await callee.send(sent)
        assert await caller.recv() == sent
    await caller.close()
    await callee.close()


async def refused(over):
    """The client gives up when it is told 401 for the second time."""
    try:
        await allocate(over, HOSTS[0])
    except stun.TransactionFailed as failed:
        assert failed.response.attributes["ERROR-CODE"][0] == 401, failed
    else:
        raise AssertionError("there is an allocation")


async def vanish():
    """Over connections, the program ends without a word."""
    for over in ["tcp", "tls"]:
        await allocate(over, HOSTS[0])
    os._exit(0)


async def story():
    if STORY == "data":
        await asyncio.gather(*(data(over, host) for over in TRANSPORTS for host in HOSTS))
    elif STORY == "again":
        await asyncio.gather(*(again(over) for over in TRANSPORTS))
    elif STORY == "calls":
        await asyncio.gather(*(call(over, answered) for over in TRANSPORTS for answered in TRANSPORTS))
    elif STORY == "refused":
        await asyncio.gather(*(refused(over) for over in TRANSPORTS))
    elif STORY == "vanish":
        await vanish()
    else:
        raise SystemExit(f"no story is called {STORY}")


asyncio.run(story())
