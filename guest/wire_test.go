package main

import (
	"bytes"
	"math/rand"
	"testing"
)

func sealed(session uint32, kind, ch byte, stream uint32, payload []byte) []byte {
	b := append(make([]byte, headLen), payload...)
	putHead(b, session, kind, ch, stream)
	return le.AppendUint32(b, session)
}

// decode feeds the pieces and tells what was found, as text.
func decode(d *decoder, pieces ...[]byte) (out []string) {
	for _, p := range pieces {
		for len(p) > 0 {
			n := copy(d.room(), p)
			d.filled(n)
			p = p[n:]
			for {
				f, what := d.next()
				if what == nothing {
					break
				}
				switch what {
				case aSync:
					out = append(out, "sync")
				case aFailure:
					out = append(out, "failure")
				case aFrame:
					out = append(out, string([]byte{'0' + f.kind, '/', '0' + f.ch, ' '})+string(f.data))
				}
			}
		}
	}
	return out
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestFramesBehindASyncAreFoundHoweverTheBytesAreCut(t *testing.T) {
	all := appendSync([]byte("noise PADDOCK1 noise"), 7)
	all = append(all, sealed(7, kData, 0, 1, []byte("a"))...)
	all = append(all, sealed(7, kEOF, 1, 1, nil)...)
	for seed := range int64(200) {
		r := rand.New(rand.NewSource(seed))
		var pieces [][]byte
		for rest := all; len(rest) > 0; {
			n := 1 + r.Intn(len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		expect(t, decode(newDecoder(), pieces...), "sync", "4/0 a", "6/1 ")
	}
}

func TestTheLargestFrameFitsAndOneByteMoreEndsTheSession(t *testing.T) {
	d := newDecoder()
	big := bytes.Repeat([]byte("x"), maxPayload)
	got := decode(d, appendSync(nil, 7), sealed(7, kData, 0, 1, big), sealed(7, kData, 0, 1, big))
	if len(got) != 3 || len(got[1]) != maxPayload+4 {
		t.Fatalf("%d found", len(got))
	}
	expect(t, decode(d, sealed(7, kData, 0, 1, append(big, 'y'))), "failure")
}

func TestAFrameOfAnotherSessionEndsTheSession(t *testing.T) {
	d := newDecoder()
	expect(t, decode(d, appendSync(nil, 7), sealed(8, kData, 0, 1, []byte("a"))), "sync", "failure")
	expect(t, decode(d, appendSync(nil, 9), sealed(9, kData, 0, 1, []byte("b"))), "sync", "4/0 b")
}

func TestANewSessionIsFoundInsideAFrameThatADeadHostCut(t *testing.T) {
	cut := sealed(7, kData, 0, 1, bytes.Repeat([]byte("x"), 500))[:200]
	next := append(appendSync(nil, 9), sealed(9, kData, 0, 3, []byte("new"))...)
	d := newDecoder()
	got := decode(d, appendSync(nil, 7), cut, next, make([]byte, maxPayload))
	expect(t, got[:4], "sync", "failure", "sync", "4/0 new")
}

func TestRandomBytesNeverBreakTheDecoder(t *testing.T) {
	for seed := range int64(300) {
		r := rand.New(rand.NewSource(seed))
		d := newDecoder()
		decode(d, appendSync(nil, 5))
		b := make([]byte, 2000)
		r.Read(b)
		le.PutUint32(b, uint32(r.Intn(40000)))
		le.PutUint32(b[8:], 5)
		decode(d, b, appendSync(nil, 6))
	}
}

func TestShortPayloadsAreBad(t *testing.T) {
	whole := appendStr(le.AppendUint32([]byte{1}, 2), "abc")
	for n := range whole {
		f := &fields{b: whole[:n]}
		f.u8()
		f.u32()
		f.str()
		if f.done() {
			t.Errorf("%d bytes of %d are enough", n, len(whole))
		}
	}
	f := &fields{b: le.AppendUint16(nil, 60000)}
	if f.blobs(); !f.bad {
		t.Error("a list longer than its payload is taken")
	}
}
