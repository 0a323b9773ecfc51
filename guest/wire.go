package main

import (
	"bytes"
	"encoding/binary"
)

// The wire is described in docs/channel.md. Everything is little endian.
const (
	magic      uint64 = 0x314B434F44444150
	syncLen           = 16
	headLen           = 16
	tailLen           = 4
	maxPayload        = 32<<10 - headLen - tailLen // one frame is one virtio_console write
	window            = 256 << 10
)

const (
	kHello byte = iota + 1
	kOpen
	kAccept
	kData
	kWindow
	kEOF
	kReset
	kExit
	kForget
	kSignal
	kPing
)

const (
	opExec     = 1
	opFilesIn  = 2
	opFilesOut = 3
	opProbe    = 4
	opShutdown = 6
	opConnect  = 65
	opDNS      = 66
)

const (
	howExited byte = iota
	howKilled
	howNeverStarted
	howFailed
)

var le = binary.LittleEndian

type frame struct {
	kind, ch byte
	stream   uint32
	data     []byte // valid until the decoder is asked again
}

type found int

const (
	nothing  found = iota // more bytes are needed
	aSync                 // a new session begins
	aFrame                // a frame of this session
	aFailure              // the session is over; what follows is scanned for the next SYNC
)

// decoder cuts a byte stream into SYNCs and frames. It holds no socket: fill the room, say how much, ask next until nothing.
type decoder struct {
	buf     []byte
	r, w    int
	session uint32 // 0: between sessions
}

func newDecoder() *decoder { return &decoder{buf: make([]byte, 128<<10)} }

// room is where the next bytes go; never empty, since a frame is far smaller than the buffer.
func (d *decoder) room() []byte {
	if d.r == d.w {
		d.r, d.w = 0, 0
	} else if len(d.buf)-d.w < headLen+maxPayload+tailLen {
		d.w = copy(d.buf, d.buf[d.r:d.w])
		d.r = 0
	}
	return d.buf[d.w:]
}

func (d *decoder) filled(n int) { d.w += n }

func (d *decoder) next() (frame, found) {
	if d.session == 0 {
		return frame{}, d.scan()
	}
	b := d.buf[d.r:d.w]
	if len(b) < headLen {
		return frame{}, nothing
	}
	n := int(le.Uint32(b))
	if le.Uint32(b[8:]) != d.session || le.Uint32(b) > maxPayload || b[14]|b[15] != 0 {
		d.session = 0
		return frame{}, aFailure
	}
	if len(b) < headLen+n+tailLen {
		return frame{}, nothing
	}
	if le.Uint32(b[headLen+n:]) != d.session {
		// A frame that a dead host cut has swallowed the SYNC behind it: look inside.
		d.session = 0
		d.r++
		return frame{}, aFailure
	}
	d.r += headLen + n + tailLen
	return frame{kind: b[12], ch: b[13], stream: le.Uint32(b[4:]), data: b[headLen : headLen+n]}, aFrame
}

var magicBytes = le.AppendUint64(nil, magic)

func (d *decoder) scan() found {
	for {
		b := d.buf[d.r:d.w]
		i := bytes.Index(b, magicBytes)
		if i < 0 {
			d.r = max(d.r, d.w-len(magicBytes)+1)
			return nothing
		}
		d.r += i
		if b = b[i:]; len(b) < syncLen {
			return nothing
		}
		if s := le.Uint32(b[8:]); s != 0 && le.Uint32(b[12:]) == ^s {
			d.r += syncLen
			d.session = s
			return aSync
		}
		d.r++
	}
}

func appendSync(b []byte, session uint32) []byte {
	return le.AppendUint32(le.AppendUint32(le.AppendUint64(b, magic), session), ^session)
}

// putHead writes the header of a frame whose payload lies behind headLen bytes of room in b.
func putHead(b []byte, session uint32, kind, ch byte, stream uint32) {
	le.PutUint32(b, uint32(len(b)-headLen))
	le.PutUint32(b[4:], stream)
	le.PutUint32(b[8:], session)
	b[12], b[13], b[14], b[15] = kind, ch, 0, 0
}

// fields reads a payload from the front; the first shortage makes it bad and every later value zero.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if n < 0 || n > len(f.b) {
		f.b, f.bad = nil, true
		return nil
	}
	v := f.b[:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) u8() byte {
	if v := f.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if v := f.take(2); v != nil {
		return le.Uint16(v)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if v := f.take(4); v != nil {
		return le.Uint32(v)
	}
	return 0
}

func (f *fields) u64() uint64 {
	if v := f.take(8); v != nil {
		return le.Uint64(v)
	}
	return 0
}

func (f *fields) str() string  { return string(f.take(int(f.u16()))) }
func (f *fields) blob() []byte { return f.take(int(f.u32())) }

// blobs reads a counted list of byte strings as strings.
func (f *fields) blobs() []string {
	n := int(f.u16())
	out := make([]string, 0, min(n, 64))
	for i := 0; i < n && !f.bad; i++ {
		out = append(out, string(f.blob()))
	}
	return out
}

func (f *fields) strs() []string {
	n := int(f.u16())
	out := make([]string, 0, min(n, 64))
	for i := 0; i < n && !f.bad; i++ {
		out = append(out, f.str())
	}
	return out
}

// done says that the payload was whole and nothing follows.
func (f *fields) done() bool { return !f.bad && len(f.b) == 0 }

func appendStr(b []byte, s string) []byte {
	s = s[:min(len(s), 0xffff)]
	return append(le.AppendUint16(b, uint16(len(s))), s...)
}
