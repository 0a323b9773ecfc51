package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	rootDevice = "/dev/vda"
	maxFiles   = 65536
)

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mountAll(list []mount) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	return nil
}

func earlyMounts() error {
	return mountAll([]mount{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, ""},
	})
}

// loadModules loads them in the order of their names, which is the order of their dependencies.
func loadModules(dir string) error {
	files, err := filepath.Glob(dir + "/*.ko") // none: the kernel has its drivers built in
	if err != nil {
		return err
	}
	sort.Strings(files)
	for _, f := range files {
		fd, err := unix.Open(f, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.FinitModule(fd, "", 0)
		unix.Close(fd)
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

// diskMiB is how much may be written: what the host says, but no more than three quarters of memory, where it is kept.
func diskMiB(cmdline string, memoryMiB uint64) uint64 {
	most := memoryMiB * 3 / 4
	for _, word := range strings.Fields(cmdline) {
		if value, ok := strings.CutPrefix(word, "paddock.disk_mib="); ok {
			if n, err := strconv.ParseUint(value, 10, 32); err == nil && n > 0 {
				return min(n, most)
			}
		}
	}
	return most
}

// switchRoot puts a writable layer over the image and makes it the root. An initramfs cannot be pivot_root'ed:
// MS_MOVE and chroot, as switch_root(8) does. /tmp is in the same layer, so that one size bounds all that is written.
func switchRoot() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	size := diskMiB(string(cmdline), info.Totalram*uint64(info.Unit)>>20)
	// As many files as memory has pages: half of that, the default, is little for a tree of small files.
	pages := info.Totalram * uint64(info.Unit) / 4096
	layer := fmt.Sprintf("size=%dm,nr_inodes=%d,mode=755", size, pages)
	err = mountAll([]mount{
		{rootDevice, "/ro", "erofs", unix.MS_RDONLY | unix.MS_NODEV, ""},
		{"layer", "/rw", "tmpfs", unix.MS_NODEV, layer},
	})
	if err != nil {
		return err
	}
	for _, dir := range []string{"/rw/up", "/rw/work", "/rw/tmp"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod("/rw/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	err = mountAll([]mount{
		{"root", "/newroot", "overlay", unix.MS_NODEV, "lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work,index=on,nfs_export=on"},
		{"/dev", "/newroot/dev", "", unix.MS_MOVE, ""},
		{"/proc", "/newroot/proc", "", unix.MS_MOVE, ""},
		{"/sys", "/newroot/sys", "", unix.MS_MOVE, ""},
		{"devpts", "/newroot/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "ptmxmode=666,mode=620,gid=5"},
		{"shm", "/newroot/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777,size=25%"},
		{"/rw/tmp", "/newroot/tmp", "", unix.MS_BIND, ""},
		{"run", "/newroot/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755,size=16m"},
	})
	if err != nil {
		return err
	}
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		_ = os.Symlink("/proc/self/fd"+target, "/newroot/dev/"+name)
	}
	old, _ := filepath.Glob("/m/*")
	for _, f := range append(old, "/init") { // their memory is the guest's
		_ = os.Remove(f)
	}
	if err := os.Chdir("/newroot"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

func settle() error {
	limit := unix.Rlimit{Cur: maxFiles, Max: maxFiles}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := noNewPrivileges(); err != nil {
		return err
	}
	_ = os.Setenv("PATH", defaultPath)
	if err := unix.Sethostname([]byte("paddock")); err != nil {
		return err
	}
	if err := setSysctls(); err != nil {
		return err
	}
	_ = os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n"), 0o644)
	return nil
}

// noNewPrivileges holds for the agent and all that it ever starts: no setuid bit or file capability makes one root.
func noNewPrivileges() error {
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("no_new_privs: %w", e)
	}
	return nil
}

// sysctls: every connection is tracked, so that what is over must not fill a small guest's table, nor use up its ports.
var sysctls = [][2]string{
	{"net/netfilter/nf_conntrack_max", "32768"},
	{"net/netfilter/nf_conntrack_tcp_timeout_time_wait", "2"},
	{"net/netfilter/nf_conntrack_tcp_timeout_close", "2"},
	{"net/netfilter/nf_conntrack_udp_timeout", "10"},
	{"net/netfilter/nf_conntrack_udp_timeout_stream", "30"},
	{"net/ipv4/tcp_tw_reuse", "1"},
}

func setSysctls() error {
	for _, s := range sysctls {
		if err := os.WriteFile("/proc/sys/"+s[0], []byte(s[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

// powerOff restarts, which ends a VMM that was told not to reboot, whatever power management the machine has.
func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
