package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// host is the other end of a guest's link, in the hands of a test.
type host struct {
	t *testing.T
	f *os.File
	d *decoder
}

const session = 77

func newHost(t *testing.T) (*host, *mux) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, os.NewFile(uintptr(fds[0]), "host"), newDecoder()}
	l := newLink(os.NewFile(uintptr(fds[1]), "guest"))
	m := newMux(l, &identity{})
	go m.run()
	t.Cleanup(func() { l.f.Close(); h.f.Close() })
	return h, m
}

func (h *host) write(b []byte) {
	h.t.Helper()
	if _, err := h.f.Write(b); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) send(kind, ch byte, stream uint32, payload []byte) {
	h.t.Helper()
	h.write(sealed(session, kind, ch, stream, payload))
}

func (h *host) next() frame {
	h.t.Helper()
	_ = h.f.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		f, what := h.d.next()
		switch what {
		case aFrame:
			f.data = bytes.Clone(f.data)
			return f
		case aFailure:
			h.t.Fatal("the guest broke the framing")
		case nothing:
			n, err := h.f.Read(h.d.room())
			if err != nil {
				h.t.Fatal(err)
			}
			h.d.filled(n)
		}
	}
}

// quietHello changes nothing on the machine that runs the tests.
func quietHello() []byte {
	b := append([]byte{1}, make([]byte, 8)...) // no clock
	b = le.AppendUint32(b, 0)                  // no seed
	return append(b, make([]byte, 8)...)       // no names, no CA
}

func (h *host) greet() {
	h.t.Helper()
	h.write(appendSync(nil, session))
	h.send(kHello, 0, 0, quietHello())
	if f := h.next(); f.kind != kHello || f.data[0] != 1 {
		h.t.Fatalf("%+v", f)
	}
	h.send(kPing, 0, 0, nil) // its echo comes when HELLO is dealt with wholly
	h.expect(kPing, 0, "")
}

func (h *host) expect(kind byte, stream uint32, words string) frame {
	h.t.Helper()
	f := h.next()
	if f.kind != kind || f.stream != stream || !strings.Contains(string(f.data), words) {
		h.t.Fatalf("got kind %d, stream %d, %q; want kind %d, stream %d, %q", f.kind, f.stream, f.data, kind, stream, words)
	}
	return f
}

func TestNothingIsOpenedBeforeHello(t *testing.T) {
	h, _ := newHost(t)
	h.write(appendSync(nil, session))
	h.send(kOpen, 0, 1, []byte{opFilesOut})
	h.expect(kReset, 1, "HELLO")
}

func TestEachHelloIsAnsweredOnce(t *testing.T) {
	h, _ := newHost(t)
	h.greet()
	h.send(kHello, 0, 0, quietHello())
	h.send(kPing, 0, 0, []byte("p"))
	h.expect(kHello, 0, agentVersion)
	h.expect(kPing, 0, "p")
}

func TestWhatTheGuestDoesNotKnowIsReset(t *testing.T) {
	h, _ := newHost(t)
	h.greet()
	for i, body := range [][]byte{{}, {99}, {opFilesIn}, {5}, append([]byte{opFilesOut}, make([]byte, 40)...)} {
		h.send(kOpen, 0, uint32(2*i+1), body)
		h.expect(kReset, uint32(2*i+1), "")
	}
	h.send(kOpen, 0, 2, []byte{opFilesOut})
	h.expect(kReset, 2, "")
}

func TestFilesGoInAndComeOutUnderCredit(t *testing.T) {
	h, _ := newHost(t)
	h.greet()
	root := publicDir(t) + "/in"
	content := strings.Repeat("0123456789abcdef", 40_000) // 640 kB: more than a window
	archive := tarOf(t, entry{name: "big", content: content})
	body := le.AppendUint32(le.AppendUint32(appendStr([]byte{opFilesIn}, root), uint32(os.Getuid())), uint32(os.Getgid()))
	h.send(kOpen, 0, 1, body)
	stored := uint64(0)
	for sent := 0; sent < len(archive); {
		n := min(maxPayload, len(archive)-sent)
		for uint64(sent+n) > stored+window {
			stored = le.Uint64(h.expect(kWindow, 1, "").data)
		}
		h.send(kData, 0, 1, archive[sent:sent+n])
		sent += n
	}
	h.send(kEOF, 0, 1, nil)
	f := h.next()
	for ; f.kind == kWindow; f = h.next() {
	}
	if f.kind != kExit || f.data[0] != howExited {
		t.Fatalf("%d %q", f.kind, f.data)
	}
	b, err := os.ReadFile(root + "/big")
	if err != nil || string(b) != content {
		t.Fatal(len(b), err)
	}

	body = le.AppendUint16(le.AppendUint64(appendStr([]byte{opFilesOut}, root), 1<<20), 0)
	h.send(kOpen, 0, 3, body)
	got, ended := uint64(0), false
	granted := uint64(0)
	for {
		f := h.next()
		switch f.kind {
		case kData:
			if got += uint64(len(f.data)); got > granted+window {
				t.Fatalf("%d bytes beyond a credit of %d", got, granted+window)
			}
			if got-granted > window/2 {
				granted = got
				h.send(kWindow, 1, 3, le.AppendUint64(nil, granted))
			}
			continue
		case kEOF:
			ended = true
			continue
		}
		if f.kind != kExit || f.data[0] != howExited || !ended || got < uint64(len(content)) {
			t.Fatalf("%d %q %v %d", f.kind, f.data, ended, got)
		}
		break
	}
}

func TestWithoutCreditNoMoreThanAWindowIsSent(t *testing.T) {
	h, m := newHost(t)
	h.greet()
	s := newStream(m, 1, session)
	out := s.newSender(1)
	m.mu.Lock()
	m.streams[1] = s
	m.mu.Unlock()
	done := make(chan error, 1)
	go func() { _, err := out.Write(make([]byte, 2*window)); done <- err }()
	got, echoes := 0, 0
	for echoes < 50 { // time enough for a guest that would go on
		if got > window-maxPayload {
			h.send(kPing, 0, 0, nil)
		}
		if f := h.next(); f.kind == kPing {
			echoes++
		} else {
			got += len(f.data)
		}
	}
	if got > window {
		t.Fatalf("%d bytes without credit", got)
	}
	m.drop(s)
	if err := <-done; err == nil {
		t.Fatal("a stream that is gone took everything")
	}
}

func TestAHostThatSendsBeyondItsCreditIsReset(t *testing.T) {
	h, m := newHost(t)
	h.greet()
	m.mu.Lock()
	s := newStream(m, 1, session)
	s.newReceiver()
	m.streams[1] = s
	m.mu.Unlock()
	for range window/maxPayload + 1 {
		h.send(kData, 0, 1, make([]byte, maxPayload))
	}
	h.expect(kReset, 1, "credit")
}

func TestOutputThatWasNotStoredIsReplayedInANewSession(t *testing.T) {
	h, m := newHost(t)
	h.greet()
	s := newStream(m, 1, session)
	out, err := s.newSender(1), s.newSender(2)
	m.mu.Lock()
	s.program = &program{}
	m.streams[1] = s
	m.mu.Unlock()
	for _, words := range []string{"first", "second"} {
		if _, e := out.Write([]byte(words)); e != nil {
			t.Fatal(e)
		}
	}
	h.expect(kData, 1, "first")
	h.expect(kData, 1, "second")
	h.send(kWindow, 1, 1, le.AppendUint64(nil, 7)) // "second" is stored in part only: all of it comes again
	out.finish()
	err.finish()
	s.finishWith(howExited, 3, "")
	h.expect(kEOF, 1, "")
	h.expect(kEOF, 1, "")
	h.expect(kExit, 1, "\x00\x03")

	h.d = newDecoder()
	h.write(appendSync(nil, session))
	h.send(kHello, 0, 0, quietHello())
	hello := h.expect(kHello, 0, "").data
	tail := hello[len(hello)-22:]
	if le.Uint16(tail) != 1 || le.Uint32(tail[2:]) != 1 || le.Uint64(tail[6:]) != 5 || le.Uint64(tail[14:]) != 0 {
		t.Fatalf("%x", tail)
	}
	h.expect(kData, 1, "second")
	h.expect(kEOF, 1, "")
	h.expect(kEOF, 1, "")
	h.expect(kExit, 1, "\x00\x03")
	h.send(kForget, 0, 1, nil)
	h.send(kPing, 0, 0, nil)
	h.expect(kPing, 0, "")
	if m.find(1) != nil {
		t.Fatal("was not forgotten")
	}
}

func TestAConnectionIsAskedForAndDiesWithItsSession(t *testing.T) {
	h, m := newHost(t)
	h.greet()
	type answer struct {
		s *stream
		b []byte
	}
	said := make(chan answer, 1)
	ask := func() {
		s, b := m.ask([]byte{opConnect}, 5*time.Second, func(s *stream) { s.newReceiver(); s.newSender(0) })
		said <- answer{s, b}
	}
	go ask()
	h.expect(kOpen, 2, string([]byte{opConnect}))
	h.send(kAccept, 0, 2, []byte("yes"))
	a := <-said
	if a.s == nil || string(a.b) != "yes" {
		t.Fatal("was not accepted")
	}
	go ask()
	h.expect(kOpen, 4, "")
	h.send(kReset, 0, 4, nil)
	if b := <-said; b.s != nil {
		t.Fatal("was accepted")
	}
	h.write(appendSync(nil, session))
	select {
	case <-a.s.gone:
	case <-time.After(10 * time.Second):
		t.Fatal("lives on")
	}
	if s, _ := m.ask([]byte{opConnect}, 5*time.Second, nil); s != nil {
		t.Fatal("was opened before HELLO")
	}
}

func TestOpensAreSpread(t *testing.T) {
	var p pace
	now := time.Now()
	var last time.Duration
	for range opensPerSecond {
		last = p.wait(now)
	}
	if last < 800*time.Millisecond || last > time.Second {
		t.Fatal(last)
	}
}
