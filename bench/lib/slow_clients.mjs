// Clients that take their time, of three kinds: heads that come byte by byte, bodies that do,
// and answers that nobody reads.  One that is turned away comes again.
import net from 'node:net';

const BYTE_EVERY_MS = 500;

export class SlowClients {
  // Resolves once all of them are connected.
  static async start(port, count, { path, authorization }) {
    const self = new SlowClients();
    self.sockets = new Set();
    self.going = true;
    self.connected = 0;
    const list = `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n\r\n`;
    const kinds = [
      (socket) => self.drip(socket, 'GET /api/me HTTP/1.1\r\nHost: x\r\nX-Slow: ' + 'y'.repeat(1000)),
      (socket) => self.drip(socket, 'z'.repeat(1000), 'POST /api/webhooks/upstream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n'),
      // More answers than the socket's buffers hold.
      (socket) => { socket.pause(); socket.write(list.repeat(20)); },
    ];
    for (let i = 0; i < count; i++) self.one(port, kinds[i % kinds.length]);
    while (self.connected < count) await new Promise((resolve) => setTimeout(resolve, 20));
    return self;
  }

  one(port, behave) {
    const socket = net.connect(port, '127.0.0.1', () => { this.connected++; behave(socket); });
    this.sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', () => {});
    socket.on('close', () => {
      clearInterval(socket.timer);
      this.sockets.delete(socket);
      if (this.going) setTimeout(() => this.going && this.one(port, behave), 10);
    });
  }

  drip(socket, text, first = '') {
    let at = 0;
    if (first) socket.write(first);
    socket.timer = setInterval(() => { if (at < text.length) socket.write(text[at++]); }, BYTE_EVERY_MS);
  }

  stop() {
    this.going = false;
    for (const socket of this.sockets) {
      clearInterval(socket.timer);
      socket.destroy();
    }
  }
}
