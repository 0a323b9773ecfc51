package main

import (
	"errors"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	errAbsolute = errors.New("an absolute name")
	errOutside  = errors.New("leads outside")
	errEmpty    = errors.New("an empty name")
)

const resolveInside = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// cleanMember is a tar member's name without "./" and "//"; "." for the root itself. It never leaves the root.
func cleanMember(name string) (string, error) {
	switch {
	case name == "" || strings.ContainsRune(name, 0):
		return "", errEmpty
	case name[0] == '/':
		return "", errAbsolute
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errOutside
		}
	}
	return path.Clean(name), nil
}

// linkInside says whether a symlink at member keeps to the root, judged by its text.
func linkInside(member, target string) error {
	switch {
	case target == "" || strings.ContainsRune(target, 0):
		return errEmpty
	case target[0] == '/':
		return errAbsolute
	}
	depth := strings.Count(member, "/")
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return errOutside
			}
		default:
			depth++
		}
	}
	return nil
}

// tree is a directory below which files are reached, never through a symlink.
type tree struct{ fd int }

func openTree(root string) (tree, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, root, &unix.OpenHow{
		Flags: unix.O_DIRECTORY | unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	return tree{fd}, err
}

func (t tree) close() { unix.Close(t.fd) }

func (t tree) open(name string, flags uint64, mode uint64) (int, error) {
	for {
		fd, err := unix.Openat2(t.fd, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: resolveInside})
		if err != unix.EAGAIN && err != unix.EINTR { // EAGAIN: something was renamed meanwhile
			return fd, err
		}
	}
}

// directory opens name, making it and its parents where they are missing.
func (t tree) directory(name string, mode uint32) (tree, error) {
	fd, err := t.open(name, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != unix.ENOENT {
		return tree{fd}, err
	}
	parent, err := t.directory(path.Dir(name), 0o755)
	if err != nil {
		return tree{-1}, err
	}
	defer parent.close()
	if err := unix.Mkdirat(parent.fd, path.Base(name), mode); err != nil && err != unix.EEXIST {
		return tree{-1}, err
	}
	fd, err = parent.open(path.Base(name), unix.O_DIRECTORY|unix.O_RDONLY, 0)
	return tree{fd}, err
}

// asUser runs f on a thread whose file accesses are those of uid and gid: what they may not touch, f may not either.
func asUser(uid, gid int, f func()) {
	if os.Geteuid() != 0 || (uid == 0 && gid == 0) {
		f()
		return
	}
	runtime.LockOSThread()
	setfs(uid, gid)
	f()
	setfs(0, 0)
	runtime.UnlockOSThread()
}

// setfs uses the raw calls, which change this thread only.
func setfs(uid, gid int) {
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
}
