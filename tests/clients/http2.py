"""HTTP/2 by hand, for what the clients and servers of the tests do not let one say."""

import asyncio

import h2.config
import h2.connection
import h2.events
import h2.settings


class Stream:
    """One request and its answer, as one of the two sides sees it."""

    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.heads = asyncio.Queue()
        self.chunks = asyncio.Queue()
        self.trailers = None
        self.reset = asyncio.Event()

    async def head(self):
        return await self.heads.get()

    async def data(self):
        """The next bytes; empty at the end, `None` after a reset."""
        return await self.chunks.get()

    async def body(self):
        parts = []
        while part := await self.data():
            parts.append(part)
        assert part is not None, "reset"
        return b"".join(parts)

    async def send_head(self, *fields, end=False):
        self.connection.state.send_headers(self.number, fields, end_stream=end)
        await self.connection.flush()

    async def send(self, data, end=False):
        """All of `data`, as the peer's window lets it."""
        state = self.connection.state
        while data:
            room = min(state.local_flow_control_window(self.number), state.max_outbound_frame_size)
            if room == 0:
                self.connection.window.clear()
                await self.connection.window.wait()
                continue
            state.send_data(self.number, data[:room])
            data = data[room:]
            await self.connection.flush()
        if end:
            state.end_stream(self.number)
            await self.connection.flush()

    async def cancel(self):
        self.connection.state.reset_stream(self.number, 8)
        await self.connection.flush()


class Connection:
    """One side of a connection. A server hands each stream to `handler`."""

    def __init__(self, reader, writer, *, client=False, handler=None):
        self.reader, self.writer, self.handler = reader, writer, handler
        config = h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.streams, self.tasks = {}, set()
        self.window = asyncio.Event()
        self.settled = asyncio.Event()

    async def flush(self):
        self.writer.write(self.state.data_to_send())
        await self.writer.drain()

    async def run(self):
        self.state.initiate_connection()
        try:
            await self.flush()
            while data := await self.reader.read(65536):
                for event in self.state.receive_data(data):
                    self.happened(event)
                await self.flush()
        except ConnectionError:
            pass
        finally:
            self.writer.close()
            for stream in self.streams.values():
                stream.reset.set()
                stream.chunks.put_nowait(None)

    def happened(self, event):
        match event:
            case h2.events.RequestReceived(stream_id=number, headers=headers):
                stream = self.streams[number] = Stream(self, number)
                stream.heads.put_nowait(dict(headers))
                task = asyncio.ensure_future(self.handler(stream))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            case h2.events.ResponseReceived(stream_id=number, headers=headers):
                self.streams[number].heads.put_nowait(dict(headers))
            case h2.events.DataReceived(stream_id=number, data=data):
                self.state.acknowledge_received_data(event.flow_controlled_length, number)
                if data:
                    self.streams[number].chunks.put_nowait(data)
            case h2.events.TrailersReceived(stream_id=number, headers=headers):
                self.streams[number].trailers = dict(headers)
            case h2.events.StreamEnded(stream_id=number):
                self.streams[number].chunks.put_nowait(b"")
            case h2.events.StreamReset(stream_id=number):
                self.streams[number].reset.set()
                self.streams[number].chunks.put_nowait(None)
            case h2.events.RemoteSettingsChanged():
                self.settled.set()
                self.window.set()
            case h2.events.WindowUpdated():
                self.window.set()

    async def request(self, *fields, end=True):
        number = self.state.get_next_available_stream_id()
        stream = self.streams[number] = Stream(self, number)
        await stream.send_head(*fields, end=end)
        return stream


async def connect(port):
    """A client's connection, once the server's settings are known."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port), client=True)
    connection.running = asyncio.create_task(connection.run())
    await connection.settled.wait()
    return connection


async def listen(handler):
    """A server on loopback; its port."""
    async def accept(reader, writer):
        await Connection(reader, writer, handler=handler).run()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1]
