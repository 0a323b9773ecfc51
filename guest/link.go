package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var errStale = errors.New("another session")

// link is the port to the host: one reader (serve), any number of senders, each frame one write.
type link struct {
	f       *os.File
	d       *decoder
	mu      sync.Mutex
	session uint32 // 0: no host
	out     []byte // scratch for small frames, under mu
}

// openLink opens the port non-blocking, through the runtime's poller: a blocking read would hold the only processor.
func openLink(path string) (*link, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return newLink(os.NewFile(uintptr(fd), path)), nil
}

func newLink(f *os.File) *link {
	return &link{f: f, d: newDecoder(), out: make([]byte, 0, headLen+maxPayload+tailLen)}
}

func findPort(name string) (string, error) {
	files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(f)), nil
		}
	}
	return "", errors.New("no virtio port " + name)
}

// send writes one frame if session is still the host's.
func (l *link) send(session uint32, kind, ch byte, stream uint32, payload []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := append(l.out[:headLen], payload...)
	return l.write(b, session, kind, ch, stream)
}

// sendChunk writes a frame built in place: b has headLen bytes of room in front and tailLen of capacity behind.
func (l *link) sendChunk(session uint32, ch byte, stream uint32, b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(b, session, kData, ch, stream)
}

func (l *link) write(b []byte, session uint32, kind, ch byte, stream uint32) error {
	if session == 0 || session != l.session {
		return errStale
	}
	putHead(b, session, kind, ch, stream)
	_, err := l.f.Write(le.AppendUint32(b, session))
	return err
}

func (l *link) current() uint32 { l.mu.Lock(); defer l.mu.Unlock(); return l.session }

func (l *link) begin(session uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = session
	if session != 0 {
		_, _ = l.f.Write(appendSync(l.out[:0], session))
	}
}

// serve reads for ever: begun for each new session, handle for each frame, in order, on this goroutine.
func (l *link) serve(begun func(uint32), handle func(frame)) {
	for {
		n, err := l.f.Read(l.d.room())
		if n <= 0 || err != nil {
			if errors.Is(err, os.ErrClosed) {
				return
			}
			time.Sleep(2 * time.Millisecond) // the host has not opened its end, or closed it
			continue
		}
		l.d.filled(n)
		for {
			f, what := l.d.next()
			if what == nothing {
				break
			}
			switch what {
			case aSync:
				l.begin(l.d.session)
				begun(l.d.session)
			case aFailure:
				l.begin(0)
			case aFrame:
				handle(f)
			}
		}
	}
}
