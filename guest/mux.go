package main

import (
	"sync"
	"time"
)

const (
	maxHostStreams  = 512
	maxGuestStreams = 400 // the host ends a VM that has more than 512
	maxUnanswered   = 48  // and one that has more than 64 OPENs waiting
	opensPerSecond  = 2000
)

const agentVersion = "paddock-guest 1"

// mux knows the streams of the link and hands each frame to its own.
type mux struct {
	l  *link
	id *identity

	mu      sync.Mutex
	streams map[uint32]*stream
	guests  int
	next    uint32 // the guest's next stream
	joined  uint32 // the session whose HELLO was answered: before it nothing is opened
	replays sync.WaitGroup

	asking chan struct{} // one token for each OPEN without an answer
	pace   pace          // the rate of OPENs
}

func newMux(l *link, id *identity) *mux {
	m := &mux{l: l, id: id, streams: map[uint32]*stream{}, next: 2}
	m.asking = make(chan struct{}, maxUnanswered)
	return m
}

func (m *mux) run() { m.l.serve(m.begun, m.handle) }

// begun is called when a new session's SYNC came. Connections belong to the host that is gone; programs live on.
func (m *mux) begun(uint32) {
	m.mu.Lock()
	m.joined = 0
	var dying []*stream
	for id, s := range m.streams {
		if s.program == nil {
			dying = append(dying, s)
			m.remove(id)
		}
	}
	m.mu.Unlock()
	for _, s := range dying {
		s.die()
	}
}

func (m *mux) remove(id uint32) {
	if _, ok := m.streams[id]; ok {
		delete(m.streams, id)
		if id%2 == 0 {
			m.guests--
		}
	}
}

func (m *mux) drop(s *stream) {
	m.mu.Lock()
	if m.streams[s.id] == s {
		m.remove(s.id)
	}
	m.mu.Unlock()
	s.die()
}

// reset ends a stream on both sides.
func (m *mux) reset(s *stream, reason string) {
	m.drop(s)
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	_ = m.l.send(session, kReset, 0, s.id, []byte(reason))
}

func (m *mux) find(id uint32) *stream { m.mu.Lock(); defer m.mu.Unlock(); return m.streams[id] }

func (m *mux) handle(f frame) {
	switch f.kind {
	case kHello:
		m.hello(f.data)
		return
	case kPing:
		_ = m.l.send(m.l.d.session, kPing, f.ch, f.stream, f.data)
		return
	case kOpen:
		m.open(f)
		return
	}
	s := m.find(f.stream)
	if s == nil {
		return // closed here while the frame was on its way
	}
	switch f.kind {
	case kAccept:
		s.answered(f.data)
	case kData:
		if f.ch != 0 || s.in == nil || !s.in.put(f.data) {
			m.reset(s, "more than the credit, or on a channel that takes nothing")
			s.kill()
		}
	case kEOF:
		if s.in != nil {
			s.in.end()
		}
	case kWindow:
		if len(f.data) == 8 && int(f.ch) < len(s.out) && s.out[f.ch] != nil {
			s.mu.Lock()
			s.out[f.ch].credit(le.Uint64(f.data))
			s.mu.Unlock()
		}
	case kReset, kForget:
		m.drop(s)
		s.kill()
	case kSignal:
		if s.program != nil && len(f.data) == 1 {
			s.program.signal(int(f.data[0]))
		}
	}
}

func (s *stream) kill() {
	if s.program != nil {
		s.program.signal(9)
	}
}

// answered hands the host's ACCEPT to the one who asked; a second one is ignored.
func (s *stream) answered(data []byte) {
	if s.answer == nil {
		return
	}
	select {
	case s.answer <- append([]byte(nil), data...):
	default:
	}
}

// hello applies what the host says before anything behind it is looked at, then answers; the first of a session replays.
func (m *mux) hello(data []byte) {
	session := m.l.d.session
	m.id.apply(data)
	m.mu.Lock()
	first := m.joined != session
	var programs []*stream
	for _, s := range m.streams {
		if s.program != nil {
			programs = append(programs, s)
		}
	}
	m.mu.Unlock()
	b := append(make([]byte, 0, 256), 1)
	b = appendStr(b, bootID())
	b = appendStr(b, agentVersion)
	b = le.AppendUint16(b, uint16(len(programs)))
	for _, s := range programs {
		s.mu.Lock()
		b = le.AppendUint32(b, s.id)
		b = le.AppendUint64(b, s.out[1].base)
		b = le.AppendUint64(b, s.out[2].base)
		s.mu.Unlock()
	}
	_ = m.l.send(session, kHello, 0, 0, b)
	if !first {
		return
	}
	m.mu.Lock()
	m.joined = session
	m.mu.Unlock()
	for _, s := range programs {
		go s.replay(session)
	}
}

// open starts what the host asks for. Programs start here, in order; longer work has its own goroutine.
func (m *mux) open(f frame) {
	session := m.l.d.session
	refuse := func(reason string) { _ = m.l.send(session, kReset, 0, f.stream, []byte(reason)) }
	m.mu.Lock()
	s := newStream(m, f.stream, session)
	_, known := m.streams[f.stream]
	why := ""
	switch {
	case f.stream%2 == 0 || known:
		why = "no such stream can be opened"
	case m.joined != session:
		why = "HELLO comes first"
	case len(m.streams)-m.guests >= maxHostStreams:
		why = "too many streams"
	}
	if why != "" {
		m.mu.Unlock()
		refuse(why)
		return
	}
	m.streams[f.stream] = s
	m.mu.Unlock()

	r := &fields{b: f.data}
	var start func()
	switch r.u8() {
	case opExec:
		q := readExec(r)
		start = func() { m.exec(s, q) }
	case opFilesIn:
		path, uid, gid := r.str(), r.u32(), r.u32()
		s.newReceiver()
		start = func() { go filesIn(s, path, int(uid), int(gid)) }
	case opFilesOut:
		root, most, globs := r.str(), r.u64(), r.strs()
		s.newSender(1)
		start = func() { go filesOut(s, root, most, globs) }
	case opProbe:
		kind, name, port := r.u8(), r.str(), r.u16()
		start = func() { go m.probe(s, kind, name, port) }
	case opShutdown:
		start = powerOff
	}
	if start == nil || !r.done() {
		m.reset(s, "an OPEN that this guest does not know")
		return
	}
	start()
}

// ask opens a stream to the host and waits for its ACCEPT. Nil when the host refused, is silent, or is not there.
func (m *mux) ask(body []byte, patience time.Duration, prepare func(*stream)) (*stream, []byte) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-timer.C:
		return nil, nil
	}
	time.Sleep(m.pace.wait(time.Now()))
	m.mu.Lock()
	if m.joined == 0 || m.guests >= maxGuestStreams {
		m.mu.Unlock()
		return nil, nil
	}
	s := newStream(m, m.next, m.joined)
	m.next += 2
	s.answer = make(chan []byte, 1)
	m.streams[s.id] = s
	m.guests++
	m.mu.Unlock()
	if prepare != nil {
		prepare(s)
	}
	if m.l.send(s.session, kOpen, 0, s.id, body) != nil {
		m.drop(s)
		return nil, nil
	}
	select {
	case b := <-s.answer:
		return s, b
	case <-s.gone:
		return nil, nil
	case <-timer.C:
		m.reset(s, "no answer in time")
		return nil, nil
	}
}

// pace lets OPENs pass at a steady rate, far below the one at which a host ends the VM; a tenth of a second may come at once.
type pace struct {
	mu   sync.Mutex
	next time.Time
}

// wait books the next place and says how long it is until then.
func (p *pace) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if floor := now.Add(-100 * time.Millisecond); p.next.Before(floor) {
		p.next = floor
	}
	p.next = p.next.Add(time.Second / opensPerSecond)
	return p.next.Sub(now)
}
