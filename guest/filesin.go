package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// filesIn unpacks the tar that the host sends below root, as uid and gid.
func filesIn(s *stream, root string, uid, gid int) {
	var err error
	asUser(uid, gid, func() { err = unpackInto(root, s.in) })
	if err == nil {
		_, err = io.Copy(io.Discard, s.in) // a tar may be padded
	}
	if err != nil {
		s.finishWith(howFailed, 1, err.Error())
		_, _ = io.Copy(io.Discard, s.in) // the host may still be sending
		return
	}
	s.finishWith(howExited, 0, "")
}

func unpackInto(root string, r io.Reader) error {
	if !strings.HasPrefix(root, "/") {
		return fmt.Errorf("%q is not an absolute path", root)
	}
	base, err := openTree("/")
	if err != nil {
		return err
	}
	defer base.close()
	t, err := base.directory("."+path.Clean(root), 0o755)
	if err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	defer t.close()
	return unpack(t, r)
}

func unpack(t tree, r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the tar is damaged: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := member(t, h, archive); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func member(t tree, h *tar.Header, content io.Reader) error {
	name, err := cleanMember(h.Name)
	if err != nil {
		return err
	}
	mode := uint32(h.Mode) & 0o777
	if h.Typeflag == tar.TypeDir {
		if name == "." {
			return nil
		}
		d, err := t.directory(name, mode)
		if err != nil {
			return err
		}
		defer d.close()
		return unix.Fchmod(d.fd, mode)
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeSymlink {
		return errors.New("neither a regular file, a directory nor a symlink")
	}
	if name == "." {
		return errEmpty
	}
	if h.Typeflag == tar.TypeSymlink {
		if err := linkInside(name, h.Linkname); err != nil {
			return fmt.Errorf("a symlink to %q: %w", h.Linkname, err)
		}
	}
	parent, err := t.directory(path.Dir(name), 0o755)
	if err != nil {
		return err
	}
	defer parent.close()
	leaf := path.Base(name)
	// What was there is replaced, not written through: a name may be shared with, or lead to, another file.
	if err := unix.Unlinkat(parent.fd, leaf, 0); err != nil && err != unix.ENOENT {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return unix.Symlinkat(h.Linkname, parent.fd, leaf)
	}
	fd, err := parent.open(leaf, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint64(mode))
	if err != nil {
		return err
	}
	if err := fill(os.NewFile(uintptr(fd), leaf), mode, content); err != nil {
		return err
	}
	changed := unix.Timespec{Sec: h.ModTime.Unix()}
	return unix.UtimesNanoAt(parent.fd, leaf, []unix.Timespec{changed, changed}, unix.AT_SYMLINK_NOFOLLOW)
}

func fill(f *os.File, mode uint32, content io.Reader) error {
	defer f.Close()
	if _, err := io.Copy(f, content); err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			return p.Err // the name is said already
		}
		return err
	}
	return unix.Fchmod(int(f.Fd()), mode) // the umask does not count
}
