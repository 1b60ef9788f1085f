// Package faultproxy stands between a client and a server on loopback, and does
// to their conversation what networks and servers do: TCP is for any protocol and
// delays, stalls, cuts and refuses; HTTP answers for the server or cuts its
// answers short. Both end with the test.
package faultproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// chunk is what is carried at a time.
const chunk = 32 << 10

// TCP carries connections to a server. Its methods may be called at any time, and
// count for connections that are open already too, where that makes sense.
type TCP struct {
	target   string
	listener net.Listener

	mu      sync.Mutex
	latency time.Duration
	up      int64         // bytes to the server until the cut; negative: none
	down    int64         // bytes to the client until the cut; negative: none
	gate    chan struct{} // closed while bytes may flow
	refuse  bool
	closed  bool
	conns   map[net.Conn]bool
	served  int
	cuts    chan struct{} // one value for each cut made
	wg      sync.WaitGroup
}

// NewTCP stands before the server at target, a host and port.
func NewTCP(t testing.TB, target string) *TCP {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &TCP{target: target, listener: l, up: -1, down: -1, gate: make(chan struct{}), conns: make(map[net.Conn]bool), cuts: make(chan struct{}, 1000)}
	close(p.gate)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is where clients connect to.
func (p *TCP) Addr() string { return p.listener.Addr().String() }

// Served is the number of connections made so far.
func (p *TCP) Served() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.served
}

// SetLatency makes every byte take so long in each direction. How many bytes are
// under way is not limited by it.
func (p *TCP) SetLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// Cut ends the connection that carries the last of so many bytes, counted over all
// connections from now on, to the server (up) and to the client (down), without a
// word. A negative number cuts never. Each cut happens once and is told on Cuts.
func (p *TCP) Cut(up, down int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.down = up, down
}

// Cuts gives a value for each cut that Cut has made.
func (p *TCP) Cuts() <-chan struct{} { return p.cuts }

// Stall holds all bytes back, with the connections open, until Resume.
func (p *TCP) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		p.gate = make(chan struct{})
	default:
	}
}

// Resume ends a Stall.
func (p *TCP) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// Refuse closes new connections at once, as a server that is down does, and those
// that are open; or stops doing so.
func (p *TCP) Refuse(yes bool) {
	p.mu.Lock()
	p.refuse = yes
	p.mu.Unlock()
	if yes {
		p.CloseAll()
	}
}

// CloseAll cuts the connections that are open.
func (p *TCP) CloseAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

// reset closes a connection without waiting for what is under way.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

func (p *TCP) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Resume()
	p.listener.Close()
	p.CloseAll()
	p.wg.Wait()
}

func (p *TCP) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// serve carries one connection.
func (p *TCP) serve(client net.Conn) {
	if !p.add(client) {
		reset(client)
		return
	}
	defer p.remove(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	if !p.add(server) {
		reset(server)
		reset(client)
		return
	}
	defer p.remove(server)
	var wg sync.WaitGroup
	wg.Go(func() { p.carry(server, client, &p.up) })
	wg.Go(func() { p.carry(client, server, &p.down) })
	wg.Wait()
}

func (p *TCP) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.closed {
		return false
	}
	p.conns[c] = true
	p.served++
	return true
}

func (p *TCP) remove(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// parcel is what was read at one time and may go on at another.
type parcel struct {
	data []byte
	due  time.Time
}

// carry moves bytes one way until the end of src, which it passes on, or an error,
// which ends both.
func (p *TCP) carry(dst, src net.Conn, budget *int64) {
	parcels := make(chan parcel, 1024)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for q := range parcels {
			if !p.deliver(dst, q, budget) {
				reset(dst)
				reset(src)
				for range parcels { // let the reader end
					continue
				}
				return
			}
		}
	}()
	for {
		buf := make([]byte, chunk)
		n, err := src.Read(buf)
		if n > 0 {
			p.mu.Lock()
			due := time.Now().Add(p.latency)
			p.mu.Unlock()
			parcels <- parcel{buf[:n], due}
		}
		if err != nil {
			close(parcels)
			<-done
			if tcp, ok := dst.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				tcp.CloseWrite()
			} else {
				dst.Close()
			}
			return
		}
	}
}

// deliver hands a parcel over when it is due, and reports whether the connection
// may go on.
func (p *TCP) deliver(dst net.Conn, q parcel, budget *int64) bool {
	if wait := time.Until(q.due); wait > 0 {
		<-time.After(wait)
	}
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	<-gate
	p.mu.Lock()
	data, cut := q.data, false
	if *budget >= 0 {
		if int64(len(data)) >= *budget {
			data, cut = data[:*budget], true
			*budget = -1
		} else {
			*budget -= int64(len(data))
		}
	}
	p.mu.Unlock()
	_, err := dst.Write(data)
	if cut {
		p.cuts <- struct{}{}
	}
	return err == nil && !cut
}
