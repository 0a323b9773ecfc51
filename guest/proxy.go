package main

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connectPatience = 60 * time.Second // the host's own decision and dial are bounded below this
	maxCaptured     = 1024             // at once, those that still wait for their turn included; more are reset
)

var errRefused = errors.New("connection refused")

// watchers are probes of ours that want to know what the host said to a connection, by its source address.
var watchers sync.Map // string → chan error

// originalDst asks conntrack where the client wanted to go. A sockaddr_in fits the buffer of an ipv6_mreq.
func originalDst(c *net.TCPConn) (address string, port uint16, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", 0, err
	}
	control := raw.Control(func(fd uintptr) {
		var m *unix.IPv6Mreq
		if m, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
			b := m.Multiaddr
			port, address = uint16(b[2])<<8|uint16(b[3]), net.IPv4(b[4], b[5], b[6], b[7]).String()
		}
	})
	if control != nil {
		return "", 0, control
	}
	return address, port, err
}

func (m *mux) serveTCP() error {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcpPort})
	if err != nil {
		return err
	}
	places := make(chan struct{}, maxCaptured)
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				time.Sleep(10 * time.Millisecond) // out of descriptors
				continue
			}
			select {
			case places <- struct{}{}:
				go func() { m.captured(c); <-places }()
			default:
				abort(c)
			}
		}
	}()
	return nil
}

// abort makes the client see a reset at once.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (m *mux) captured(c *net.TCPConn) {
	address, port, err := originalDst(c)
	if err != nil || (port == tcpPort && address == "127.0.0.1") {
		abort(c)
		return
	}
	body := le.AppendUint16(appendStr([]byte{opConnect}, address), port)
	s, _ := m.ask(body, connectPatience, func(s *stream) { s.newReceiver(); s.newSender(0) })
	if w, ok := watchers.LoadAndDelete(c.RemoteAddr().String()); ok {
		if s == nil {
			w.(chan error) <- errRefused
		} else {
			w.(chan error) <- nil
		}
	}
	if s == nil {
		abort(c)
		return
	}
	m.splice(s, c)
}

// splice carries a connection until both directions have ended, or one of them broke.
func (m *mux) splice(s *stream, c *net.TCPConn) {
	up := make(chan error, 1)
	go func() { up <- s.out[0].pump(c) }()
	down := make(chan error, 1)
	go func() {
		err := s.in.drain(c)
		if err == nil {
			err = c.CloseWrite()
			if errors.Is(err, syscall.ENOTCONN) {
				err = nil
			}
		}
		down <- err
	}()
	for waiting := 2; waiting > 0; waiting-- {
		var err error
		select {
		case err = <-up:
		case err = <-down:
		case <-s.gone:
			abort(c)
			return
		}
		if err != nil {
			m.reset(s, "the guest's end broke")
			abort(c)
			return
		}
	}
	_ = c.Close()
	m.drop(s)
}
