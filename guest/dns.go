package main

import (
	"encoding/binary"
	"io"
	"net"
	"time"
)

const (
	dnsPatience = 10 * time.Second
	dnsIdle     = 10 * time.Second
	maxQueries  = 256 // at once; more are dropped, and asked again by the resolver
	maxStreams  = 64  // DNS over TCP
)

// serveDNS answers where programs ask 127.0.0.1, and where queries to other addresses are redirected to.
func (m *mux) serveDNS() error {
	queries, streams := make(chan struct{}, maxQueries), make(chan struct{}, maxStreams)
	for _, port := range []int{53, dnsPort} {
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			return err
		}
		tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			return err
		}
		go m.serveUDP(udp, queries)
		go m.serveStreams(tcp, streams)
	}
	return nil
}

func (m *mux) serveUDP(c *net.UDPConn, slots chan struct{}) {
	b := make([]byte, 4096)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		query := append([]byte(nil), b[:n]...)
		go func() {
			defer func() { <-slots }()
			if answer := m.resolve(query, 0); answer != nil {
				_, _ = c.WriteToUDPAddrPort(answer, from)
			}
		}()
	}
}

func (m *mux) serveStreams(l *net.TCPListener, slots chan struct{}) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		slots <- struct{}{}
		go func() {
			defer func() { _ = c.Close(); <-slots }()
			m.serveStream(c)
		}()
	}
}

// serveStream answers queries one after the other, each with its length in front (RFC 1035 4.2.2).
func (m *mux) serveStream(c *net.TCPConn) {
	var size [2]byte
	for {
		_ = c.SetReadDeadline(time.Now().Add(dnsIdle))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		answer := m.resolve(query, 1)
		if answer == nil || len(answer) > 0xffff {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// resolve gives the host's answer, or SERVFAIL; nil for what is no query.
func (m *mux) resolve(query []byte, tcp byte) []byte {
	if len(query) < 12 || len(query) > maxPayload-8 {
		return nil
	}
	body := append(le.AppendUint32([]byte{opDNS, tcp}, uint32(len(query))), query...)
	s, answer := m.ask(body, dnsPatience, nil)
	if s != nil {
		m.drop(s)
	}
	if len(answer) < 12 {
		return servfail(query)
	}
	return answer
}

func servfail(query []byte) []byte {
	b := append([]byte(nil), query...)
	b[2] |= 0x80            // an answer
	b[3] = b[3]&0x70 | 0x82 // recursion available, SERVFAIL
	return b
}
