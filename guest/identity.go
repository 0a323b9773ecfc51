package main

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	caBundle = "/etc/ssl/certs/ca-certificates.crt"
	caFile   = "/usr/local/share/ca-certificates/paddock.crt"
	ownHost  = "127.0.0.1 localhost\n::1 localhost\n"
)

var caKnown atomic.Bool

// identity is what makes a clone different from its template.
type identity struct {
	root    string // "" but in tests
	pristin int64  // length of the CA bundle as the image has it
	last    []byte // the CA appended behind it
}

// prepare copies the bundle up while the template boots, so that handing out a clone appends only a few bytes.
func (id *identity) prepare() {
	f, err := os.OpenFile(id.root+caBundle, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		id.pristin = st.Size()
	}
	_ = os.MkdirAll(id.root+"/usr/local/share/ca-certificates", 0o755)
}

// apply does what HELLO says: entropy first, since everything behind it may draw random numbers.
func (id *identity) apply(data []byte) {
	r := &fields{b: data}
	version, now, seed := r.u8(), int64(r.u64()), r.blob()
	host, machine, ca := r.str(), r.str(), r.blob()
	if r.bad || version != 1 {
		return
	}
	if len(seed) > 0 {
		warn("reseed", reseed(seed))
	}
	if now > 0 {
		ts := unix.NsecToTimespec(now)
		warn("clock", unix.ClockSettime(unix.CLOCK_REALTIME, &ts))
	}
	if host != "" && len(host) < 64 && !strings.ContainsAny(host, " \t\n#") {
		warn("hostname", unix.Sethostname([]byte(host)))
		warn("hostname", id.write("/etc/hostname", host+"\n", 0o644))
		warn("hosts", id.write("/etc/hosts", ownHost+guestAddress+" "+host+"\n", 0o644))
	}
	if machine != "" {
		warn("machine-id", id.write("/etc/machine-id", machine+"\n", 0o444))
	}
	if len(ca) > 0 {
		warn("ca", id.trust(ca))
	}
}

func (id *identity) write(path, content string, mode os.FileMode) error {
	return os.WriteFile(id.root+path, []byte(content), mode)
}

// trust appends the CA to the bundle of the image. A bundle that someone else has changed since is only added to.
func (id *identity) trust(ca []byte) error {
	if ca[len(ca)-1] != '\n' {
		ca = append(ca, '\n')
	}
	if err := os.WriteFile(id.root+caFile, ca, 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile(id.root+caBundle, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	at := id.pristin
	if st.Size() != id.pristin+int64(len(id.last)) {
		at = st.Size()
	} else if bytes.Equal(id.last, ca) {
		caKnown.Store(true)
		return nil
	}
	if _, err := f.WriteAt(ca, at); err != nil {
		return err
	}
	if at == id.pristin {
		if err := f.Truncate(at + int64(len(ca))); err != nil {
			return err
		}
		id.last = append([]byte(nil), ca...)
	}
	caKnown.Store(true)
	return nil
}

// reseed adds entropy that counts and makes the kernel use it at once: clones would otherwise repeat each other's numbers.
func reseed(seed []byte) error {
	fd, err := unix.Open("/dev/random", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := make([]byte, 8, 8+len(seed)) // struct rand_pool_info: bits, bytes, pool
	le.PutUint32(b, uint32(len(seed)*8))
	le.PutUint32(b[4:], uint32(len(seed)))
	b = append(b, seed...)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&b[0]))); e != 0 {
		return e
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDRESEEDCRNG, 0); e != 0 {
		return e
	}
	return nil
}

var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})
