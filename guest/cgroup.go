package main

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	workGroup  = cgroupRoot + "/work"
	maxPids    = 1024
	reserved   = 48 << 20 // memory that programs may not take from kernel and agent
)

// cgroup holds one program and all it starts. Empty ones are used again: making one costs more than a small program.
type cgroup struct{ dir, events, killer int }

var groups struct {
	sync.Mutex
	free []*cgroup
	made int
}

// setupCgroups makes the tree in which programs run, with the limits of all of them together.
// The agent needs no OOM protection: the kernel never picks PID 1.
func setupCgroups() error {
	if err := mountAll([]mount{{"cgroup2", cgroupRoot, "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""}}); err != nil {
		return err
	}
	if err := os.WriteFile(cgroupRoot+"/cgroup.subtree_control", []byte("+memory +pids"), 0); err != nil {
		return err
	}
	if err := os.Mkdir(workGroup, 0o755); err != nil {
		return err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	total := info.Totalram * uint64(info.Unit)
	limit := max(total, 2*reserved) - reserved
	if err := os.WriteFile(workGroup+"/memory.max", strconv.AppendUint(nil, limit, 10), 0); err != nil {
		return err
	}
	return os.WriteFile(workGroup+"/pids.max", strconv.AppendUint(nil, maxPids, 10), 0)
}

func newCgroup() (*cgroup, error) {
	groups.Lock()
	defer groups.Unlock()
	for i := len(groups.free) - 1; i >= 0; i-- {
		if g := groups.free[i]; g.empty() {
			groups.free = append(groups.free[:i], groups.free[i+1:]...)
			return g, nil
		}
	}
	groups.made++
	path := workGroup + "/" + strconv.Itoa(groups.made)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	g := &cgroup{}
	for _, f := range []struct {
		fd    *int
		name  string
		flags int
	}{{&g.dir, "", unix.O_DIRECTORY}, {&g.events, "/cgroup.events", unix.O_RDONLY}, {&g.killer, "/cgroup.kill", unix.O_WRONLY}} {
		var err error
		if *f.fd, err = unix.Open(path+f.name, f.flags|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func (g *cgroup) release() {
	groups.Lock()
	groups.free = append(groups.free, g)
	groups.Unlock()
}

// kill ends every process of the group, also those being forked.
func (g *cgroup) kill() { _, _ = unix.Pwrite(g.killer, []byte("1"), 0) }

func (g *cgroup) empty() bool {
	var b [128]byte
	n, err := unix.Pread(g.events, b[:], 0)
	return err == nil && bytes.Contains(b[:n], []byte("populated 0"))
}

// oomSeen is how often the kernel had killed a program for memory when it was last looked at.
var oomSeen atomic.Uint64

// oomKilled says whether it did so again since.
func oomKilled() bool {
	b, _ := os.ReadFile(workGroup + "/memory.events")
	_, after, _ := bytes.Cut(b, []byte("oom_kill "))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	n, _ := strconv.ParseUint(string(line), 10, 64)
	return oomSeen.Swap(n) < n
}
