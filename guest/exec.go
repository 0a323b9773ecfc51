package main

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// PID 1 must reap orphans, so os/exec, which waits by pid, is not used: one goroutine owns wait4(-1).
var reaper = struct {
	sync.Mutex
	waiting map[int]func(unix.WaitStatus)
}{waiting: map[int]func(unix.WaitStatus){}}

func reap() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGCHLD)
	for range c {
		for {
			var status unix.WaitStatus
			reaper.Lock()
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			f := reaper.waiting[pid]
			delete(reaper.waiting, pid)
			reaper.Unlock()
			if pid <= 0 || err != nil {
				break
			}
			if f != nil {
				f(status)
			}
		}
	}
}

type execRequest struct {
	flags     byte
	uid, gid  uint32
	cwd       string
	argv, env []string
}

func readExec(r *fields) execRequest {
	return execRequest{flags: r.u8(), uid: r.u32(), gid: r.u32(), cwd: r.str(), argv: r.blobs(), env: r.blobs()}
}

// program is one run of one program: its first process and the cgroup that holds all it started.
type program struct {
	mu    sync.Mutex
	pid   int
	group *cgroup
	ended bool
}

// signal reaches the process group; 9 ends everything in the cgroup.
func (p *program) signal(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.pid == 0 {
		return
	}
	if n == int(unix.SIGKILL) {
		p.group.kill()
		return
	}
	_ = unix.Kill(-p.pid, unix.Signal(n))
}

func (m *mux) exec(s *stream, q execRequest) {
	p := &program{}
	out, err := s.newSender(1), s.newSender(2)
	m.mu.Lock()
	s.program = p
	m.mu.Unlock()
	never := func(value uint32, why string) {
		out.finish()
		err.finish()
		s.finishWith(howNeverStarted, value, why)
	}
	if len(q.argv) == 0 || q.argv[0] == "" {
		never(127, "no program was named")
		return
	}
	if q.cwd == "" {
		q.cwd = "/"
	}
	if info, e := os.Stat(q.cwd); e != nil || !info.IsDir() {
		never(125, "working directory "+q.cwd+": "+reason(e, unix.ENOTDIR))
		return
	}
	env := environment(q.env, q.uid)
	path, e := lookPath(q.argv[0], q.cwd, env)
	if e != nil {
		never(startValue(e), q.argv[0]+": "+reason(e, nil))
		return
	}
	if e := m.start(s, p, path, q, env); e != nil {
		never(startValue(e), q.argv[0]+": "+reason(e, nil))
	}
}

// startValue is the shell's convention: 127 not found, 126 found but not executable, 125 anything of ours.
func startValue(e error) uint32 {
	switch {
	case errors.Is(e, unix.ENOENT), errors.Is(e, unix.ENOTDIR):
		return 127
	case errors.Is(e, unix.EACCES), errors.Is(e, unix.ENOEXEC), errors.Is(e, unix.EISDIR), errors.Is(e, unix.ELOOP):
		return 126
	}
	return 125
}

func reason(e error, otherwise error) string {
	if e == nil {
		e = otherwise
	}
	var number unix.Errno
	if errors.As(e, &number) {
		return number.Error()
	}
	return e.Error()
}

type pipes struct{ fds [3][2]int }

func (p *pipes) open(stdin bool) error {
	for i := range p.fds {
		p.fds[i] = [2]int{-1, -1}
	}
	for i := range p.fds {
		var e error
		if i == 0 && !stdin {
			p.fds[0][0], e = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		} else {
			e = unix.Pipe2(p.fds[i][:], unix.O_CLOEXEC)
		}
		if e != nil {
			p.close(0, 1)
			return e
		}
	}
	return nil
}

func (p *pipes) close(ends ...int) {
	for i := range p.fds {
		for _, end := range ends {
			if p.fds[i][end] >= 0 {
				unix.Close(p.fds[i][end])
			}
		}
	}
}

// ownEnd makes a pipe's end ours: non-blocking, on the runtime's poller.
func ownEnd(fd int) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "pipe")
}

func (m *mux) start(s *stream, p *program, path string, q execRequest, env []string) error {
	group, e := newCgroup()
	if e != nil {
		return e
	}
	p.group = group
	var io pipes
	stdin := q.flags&1 != 0
	if e := io.open(stdin); e != nil {
		group.release()
		return e
	}
	attr := &syscall.ProcAttr{
		Dir: q.cwd, Env: env,
		Files: []uintptr{uintptr(io.fds[0][0]), uintptr(io.fds[1][1]), uintptr(io.fds[2][1])},
		Sys: &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: group.dir,
			Credential: &syscall.Credential{Uid: q.uid, Gid: q.gid}},
	}
	ended := make(chan unix.WaitStatus, 1)
	reaper.Lock()
	pid, e := syscall.ForkExec(path, q.argv, attr)
	if e == nil {
		reaper.waiting[pid] = func(w unix.WaitStatus) { ended <- w }
	}
	reaper.Unlock()
	for i, end := range [3]int{0, 1, 1} { // the child's ends
		unix.Close(io.fds[i][end])
		io.fds[i][end] = -1
	}
	if e != nil {
		io.close(0, 1)
		group.release()
		return e
	}
	p.mu.Lock()
	p.pid = pid
	p.mu.Unlock()
	_ = m.l.send(s.session, kAccept, 0, s.id, le.AppendUint32(nil, uint32(pid)))

	if stdin {
		in, w := s.newReceiver(), ownEnd(io.fds[0][1])
		go func() { _ = in.drain(w); w.Close() }()
	}
	var outs sync.WaitGroup
	outs.Add(2)
	var files [2]*os.File
	for i := range 2 {
		f := ownEnd(io.fds[i+1][0])
		o := s.out[i+1]
		o.pipe, files[i] = f, f
		go func() {
			if o.pump(f) != nil {
				o.finish()
			}
			f.Close()
			outs.Done()
		}()
	}
	go func() {
		w := <-ended
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		group.kill()
		for _, f := range files {
			// What a root process moved out of the cgroup may hold a pipe for ever: then its present content is all.
			_ = f.SetReadDeadline(time.Now().Add(2 * time.Second))
		}
		outs.Wait()
		how, value, message := verdict(w)
		s.finishWith(how, value, message)
		group.release()
	}()
	return nil
}

func verdict(w unix.WaitStatus) (how byte, value uint32, message string) {
	if !w.Signaled() {
		return howExited, uint32(w.ExitStatus()), ""
	}
	if w.Signal() == unix.SIGKILL && oomKilled() {
		message = "out of memory"
	}
	return howKilled, uint32(w.Signal()), message
}
