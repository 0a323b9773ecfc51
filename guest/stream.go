package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// stream is one conversation on the link. Its lock guards everything below it, senders and receiver included.
type stream struct {
	m  *mux
	id uint32

	mu      sync.Mutex
	wake    *sync.Cond
	session uint32 // the session this stream has joined; a new one begins with replay
	dead    bool
	out     [3]*sender
	in      *receiver

	exit     []byte // EXIT's payload, once known
	exitSent bool

	program *program      // op exec
	answer  chan []byte   // connect and dns: the host's ACCEPT; closed by RESET
	gone    chan struct{} // closed when the stream dies
}

func newStream(m *mux, id, session uint32) *stream {
	s := &stream{m: m, id: id, session: session, gone: make(chan struct{})}
	s.wake = sync.NewCond(&s.mu)
	return s
}

// sender keeps what the host has not stored yet. q[:flushed] was sent in this session; q[0] begins at base.
type sender struct {
	s           *stream
	ch          byte
	q           [][]byte // each with headLen bytes of room in front
	flushed     int
	base        uint64 // offset of q[0]
	next        uint64 // offset behind the last queued byte
	acked       uint64 // what the host said is stored
	eof         bool
	eofSent     bool
	pipe        deadliner
	last        bool // the program is gone: what the pipe holds now is all
	lastWaiting bool
}

type deadliner interface{ SetReadDeadline(time.Time) error }

func (s *stream) newSender(ch byte) *sender {
	o := &sender{s: s, ch: ch}
	s.out[ch] = o
	return o
}

var chunks = sync.Pool{New: func() any { b := make([]byte, headLen+maxPayload+tailLen); return &b }}

const keepWhole = maxPayload / 2 // less than this is copied, so that a line of text does not pin 32 KiB

// pump copies r into the stream under the host's credit. It ends with EOF sent, or with the error that broke the reading.
func (o *sender) pump(r io.Reader) error {
	for {
		if !o.waitCredit() {
			return errStale
		}
		big := chunks.Get().(*[]byte)
		n, err := r.Read((*big)[headLen : headLen+maxPayload])
		var b []byte
		if n > keepWhole {
			b = (*big)[:headLen+n]
		} else {
			if n > 0 {
				b = make([]byte, headLen+n, headLen+n+tailLen)
				copy(b[headLen:], (*big)[headLen:headLen+n])
			}
			chunks.Put(big)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = o.lastReads(n)
		}
		ended := errors.Is(err, io.EOF)
		o.s.mu.Lock()
		if n > 0 {
			o.q = append(o.q, b)
			o.next += uint64(n)
		}
		o.eof = o.eof || ended
		o.flush()
		o.s.mu.Unlock()
		if ended {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lastReads takes what is left in the pipe of a program that ended while a process that escaped holds the other end.
func (o *sender) lastReads(n int) error {
	if o.lastWaiting && n == 0 {
		return io.EOF
	}
	o.lastWaiting = true
	return o.pipe.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
}

func (o *sender) waitCredit() bool {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	for o.next-o.acked > window-maxPayload && !o.s.dead {
		o.s.wake.Wait()
	}
	return !o.s.dead
}

// Write sends p from memory, waiting for credit: for streams that have no file to pump.
func (o *sender) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		if !o.waitCredit() {
			return done, errStale
		}
		n := min(len(p)-done, maxPayload)
		b := make([]byte, headLen+n, headLen+n+tailLen)
		copy(b[headLen:], p[done:])
		done += n
		o.s.mu.Lock()
		o.q = append(o.q, b)
		o.next += uint64(n)
		o.flush()
		o.s.mu.Unlock()
	}
	return len(p), nil
}

func (o *sender) finish() {
	o.s.mu.Lock()
	o.eof = true
	o.flush()
	o.s.mu.Unlock()
}

// flush sends what this session has not seen. The stream's lock is held.
func (o *sender) flush() {
	s := o.s
	if s.dead {
		return
	}
	for ; o.flushed < len(o.q); o.flushed++ {
		if s.m.l.sendChunk(s.session, o.ch, s.id, o.q[o.flushed]) != nil {
			return
		}
	}
	if o.eof && !o.eofSent {
		o.eofSent = s.m.l.send(s.session, kEOF, o.ch, s.id, nil) == nil
	}
	s.flushExit()
}

// credit drops whole chunks below acked; a chunk that is stored in part is kept and would be replayed from base.
func (o *sender) credit(acked uint64) {
	if acked <= o.acked || acked > o.next {
		return
	}
	o.acked = acked
	drop := 0
	for drop < o.flushed && o.base+uint64(len(o.q[drop])-headLen) <= acked {
		b := o.q[drop]
		o.base += uint64(len(b) - headLen)
		if cap(b) == headLen+maxPayload+tailLen {
			b = b[:cap(b)]
			chunks.Put(&b)
		}
		o.q[drop] = nil
		drop++
	}
	o.q = o.q[drop:]
	o.flushed -= drop
	o.s.wake.Broadcast()
}

// finishWith records EXIT, which goes out behind the EOFs.
func (s *stream) finishWith(how byte, value uint32, message string) {
	b := le.AppendUint32([]byte{how}, value)
	s.mu.Lock()
	s.exit = append(b, message[:min(len(message), 4096)]...)
	s.flushExit()
	s.mu.Unlock()
}

func (s *stream) flushExit() {
	if s.exit == nil || s.exitSent || s.dead {
		return
	}
	for _, o := range s.out {
		if o != nil && !o.eofSent {
			return
		}
	}
	s.exitSent = s.m.l.send(s.session, kExit, 0, s.id, s.exit) == nil
}

// replay joins a new session and sends again what was never stored.
func (s *stream) replay(session uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session, s.exitSent = session, false
	for _, o := range s.out {
		if o != nil {
			o.flushed, o.eofSent = 0, false
		}
	}
	for _, o := range s.out {
		if o != nil {
			o.flush()
		}
	}
	s.flushExit()
}

// die ends the stream here: pumps and readers wake up, nothing more is sent on it.
func (s *stream) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return
	}
	s.dead = true
	if s.in != nil {
		s.in.closed = true
	}
	close(s.gone)
	s.wake.Broadcast()
}

// receiver queues what the host sends on channel 0, at most a window of it, until someone takes it.
type receiver struct {
	s      *stream
	q      [][]byte
	got    uint64 // received
	used   uint64 // stored where it belongs
	told   uint64 // said to the host
	eof    bool
	closed bool
	rest   []byte // of Read
	mark   int
}

func (s *stream) newReceiver() *receiver { s.in = &receiver{s: s}; return s.in }

// put takes a copy of p; false when the host went beyond its credit.
func (r *receiver) put(p []byte) bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.got += uint64(len(p))
	if r.got-r.told > window || r.eof {
		return false
	}
	if !r.closed && len(p) > 0 {
		r.q = append(r.q, append([]byte(nil), p...))
		r.s.wake.Broadcast()
	}
	return true
}

func (r *receiver) end() {
	r.s.mu.Lock()
	r.eof = true
	r.s.wake.Broadcast()
	r.s.mu.Unlock()
}

// take waits for the next piece; false at the end.
func (r *receiver) take() ([]byte, bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for len(r.q) == 0 && !r.eof && !r.closed {
		r.s.wake.Wait()
	}
	if len(r.q) == 0 || r.closed {
		return nil, false
	}
	b := r.q[0]
	r.q[0] = nil
	r.q = r.q[1:]
	return b, true
}

// stored gives the host credit for n more bytes, in steps of a quarter of the window.
func (r *receiver) stored(n int) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.used += uint64(n)
	if r.used-r.told >= window/4 && !r.s.dead {
		r.told = r.used
		_ = r.s.m.l.send(r.s.session, kWindow, 0, r.s.id, le.AppendUint64(nil, r.used))
	}
}

// drain writes all that comes into w, and goes on giving credit when w no longer takes it.
func (r *receiver) drain(w io.Writer) error {
	var broken error
	for {
		b, ok := r.take()
		if !ok {
			return broken
		}
		if broken == nil {
			_, broken = w.Write(b)
		}
		r.stored(len(b))
	}
}

// Read makes the receiver an io.Reader; the end of the stream without EOF is ErrUnexpectedEOF.
func (r *receiver) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.mark > 0 {
			r.stored(r.mark)
			r.mark = 0
		}
		b, ok := r.take()
		if !ok {
			if r.closed {
				return 0, io.ErrUnexpectedEOF
			}
			return 0, io.EOF
		}
		r.rest, r.mark = b, len(b)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
