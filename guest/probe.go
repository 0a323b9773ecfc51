package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
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
)

var (
	// Any address: capture must take the query to the host.
	probeServer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 53}), 53)
	errBadName  = errors.New("not a name")
	errNoName   = errors.New("no such host")
	errNoAnswer = errors.New("no address in the answer")
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

// resolveCaptured asks as a program would, over the captured port 53, but by hand: the standard resolver reads files and
// runs so much code for the first time that without KVM it costs more than the rest of the boot's probes together.
func resolveCaptured(ctx context.Context, name string) (string, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		return name, nil
	}
	query, err := queryA(name)
	if err != nil {
		return "", err
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(probeServer))
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	if _, err := c.Write(query); err != nil {
		return "", err
	}
	answer := make([]byte, 1500)
	n, err := c.Read(answer)
	if err != nil {
		return "", err
	}
	return firstA(answer[:n], len(query))
}

// queryA is a recursive query for the A record of name.
func queryA(name string) ([]byte, error) {
	q := []byte{'p', 'd', 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		if len(label) == 0 || len(label) > 63 {
			return nil, errBadName
		}
		q = append(append(q, byte(len(label))), label...)
	}
	if len(q) > 12+254 {
		return nil, errBadName
	}
	return append(q, 0, 0, 1, 0, 1), nil
}

// firstA is the first address in an answer whose question is as long as the query's; the name may only be a pointer.
func firstA(answer []byte, question int) (string, error) {
	if len(answer) < question || answer[0] != 'p' || answer[1] != 'd' {
		return "", errNoAnswer
	}
	switch rcode := answer[3] & 15; {
	case rcode == 3:
		return "", errNoName
	case rcode != 0:
		return "", errNoAnswer
	}
	record := answer[question:]
	if len(record) < 16 || record[0]&0xc0 != 0xc0 || record[2] != 0 || record[3] != 1 || record[10] != 0 || record[11] != 4 {
		return "", errNoAnswer
	}
	return netip.AddrFrom4([4]byte(record[12:16])).String(), nil
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
