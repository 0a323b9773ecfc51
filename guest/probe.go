package main

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	probeDNS = 1
	probeTCP = 2
	probeUDP = 3

	probePatience = 10 * time.Second
	udpPatience   = 500 * time.Millisecond // a refusal comes at once
	probeServer   = "192.0.2.53:53"        // any address: capture must take the query to the host
)

// probe does what a program would do, the kernel's capture included, and says how it went.
func (m *mux) probe(s *stream, kind byte, name string, port uint16) {
	ctx, cancel := context.WithTimeout(context.Background(), probePatience)
	defer cancel()
	address, err := resolveCaptured(ctx, name)
	if err == nil {
		switch kind {
		case probeDNS:
		case probeTCP:
			err = probeConnect(ctx, net.JoinHostPort(address, strconv.Itoa(int(port))))
		case probeUDP:
			err = probeDatagram(net.JoinHostPort(address, strconv.Itoa(int(port))))
		default:
			err = unix.EINVAL
		}
	}
	if err != nil {
		s.finishWith(howExited, 1, err.Error())
		return
	}
	s.finishWith(howExited, 0, address)
}

func resolveCaptured(ctx context.Context, name string) (string, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		return name, nil
	}
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, probeServer)
	}}
	found, err := r.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return "", err
	}
	return found[0].String(), nil
}

// probeConnect succeeds when the host took the connection: the kernel's own handshake proves nothing.
func probeConnect(ctx context.Context, target string) error {
	said := make(chan error, 1)
	var own string
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		e := c.Control(func(fd uintptr) { own, err = bindOwn(int(fd)) })
		if e == nil {
			e = err
		}
		if e == nil {
			watchers.Store(own, said)
		}
		return e
	}}
	c, err := d.DialContext(ctx, "tcp", target)
	defer watchers.Delete(own)
	if err != nil {
		return err
	}
	defer abort(c.(*net.TCPConn))
	select {
	case err := <-said:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bindOwn chooses the source address before the connection exists, so that it can be watched for.
func bindOwn(fd int) (string, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_INET {
		return "", err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(guestIP)}); err != nil {
		return "", err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(guestAddress, strconv.Itoa(name.(*unix.SockaddrInet4).Port)), nil
}

func probeDatagram(target string) error {
	c, err := net.Dial("udp", target)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("paddock")); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(udpPatience))
	_, err = c.Read(make([]byte, 1))
	if t, ok := err.(net.Error); ok && t.Timeout() {
		return nil
	}
	return err
}
