package main

import (
	"bytes"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	workGroup  = cgroupRoot + "/work"
	maxPids    = 1024
	reserved   = 48 << 20 // memory that programs may not take from kernel and agent
)

// cgroup holds one program and all it starts. Empty ones are used again: making one costs more than a small program.
type cgroup struct {
	path string
	fd   int
}

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
	g := &cgroup{path: workGroup + "/" + strconv.Itoa(groups.made)}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return nil, err
	}
	var err error
	g.fd, err = unix.Open(g.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return g, err
}

func (g *cgroup) release() {
	groups.Lock()
	groups.free = append(groups.free, g)
	groups.Unlock()
}

// kill ends every process of the group, also those being forked.
func (g *cgroup) kill() {
	if fd, err := unix.Openat(g.fd, "cgroup.kill", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Write(fd, []byte("1"))
		unix.Close(fd)
	}
}

func (g *cgroup) empty() bool {
	b, err := os.ReadFile(g.path + "/cgroup.events")
	return err == nil && bytes.Contains(b, []byte("populated 0"))
}

// oomKills is how often the kernel killed a program for memory so far.
func oomKills() uint64 {
	b, _ := os.ReadFile(workGroup + "/memory.events")
	_, after, _ := bytes.Cut(b, []byte("oom_kill "))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	n, _ := strconv.ParseUint(string(line), 10, 64)
	return n
}
