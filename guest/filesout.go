package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

var errTooMuch = errors.New("more than the output limit")

// workload is the image's account that programs run as, and its group.
const workload = 1000

// filesOut sends what matches below root as a tar.
func filesOut(s *stream, root string, most uint64, globs []string) {
	o := s.out[1]
	err := packAsWorkload(root, most, globs, o)
	o.finish()
	if err != nil {
		s.finishWith(howFailed, 1, err.Error())
		return
	}
	s.finishWith(howExited, 0, "")
}

// packAsWorkload packs what the workload itself could read: no output brings out what is root's.
func packAsWorkload(root string, most uint64, globs []string, w io.Writer) (err error) {
	asUser(workload, workload, func() { err = packFrom(root, most, globs, w) })
	return err
}

func packFrom(root string, most uint64, globs []string, w io.Writer) error {
	t, err := openTree(root)
	if err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	defer t.close()
	p := &packer{archive: tar.NewWriter(w), left: most}
	for _, g := range globs {
		p.globs = append(p.globs, parseGlob(g))
	}
	if err := p.walk(t, "", len(globs) == 0); err != nil {
		return err
	}
	return p.archive.Close()
}

// packer writes matching members; a directory that matches brings all that is in it.
type packer struct {
	archive *tar.Writer
	globs   []glob
	left    uint64
}

func (p *packer) walk(t tree, dir string, all bool) error {
	f := os.NewFile(uintptr(dup(t.fd)), dir)
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	sort.Strings(names)
	for _, leaf := range names {
		name := path.Join(dir, leaf)
		wanted, deeper := all, all
		for _, g := range p.globs {
			if all {
				break
			}
			w, d := g.match(name)
			wanted, deeper = wanted || w, deeper || d
		}
		if !wanted && !deeper {
			continue
		}
		if err := p.member(t, leaf, name, wanted); err != nil {
			return err
		}
	}
	return nil
}

func dup(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return n
}

func (p *packer) member(t tree, leaf, name string, wanted bool) error {
	var st unix.Stat_t
	if err := unix.Fstatat(t.fd, leaf, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return nil // gone meanwhile
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatPAX}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return p.directory(t, leaf, h, wanted)
	case unix.S_IFREG:
		if wanted {
			err = p.file(t, leaf, h)
		}
	case unix.S_IFLNK:
		if wanted {
			err = p.link(t, leaf, h)
		}
	default:
		if wanted {
			err = errors.New("neither a regular file, a directory nor a symlink")
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (p *packer) directory(t tree, leaf string, h *tar.Header, wanted bool) error {
	fd, err := t.open(leaf, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	defer unix.Close(fd)
	name := h.Name
	if wanted {
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if err := p.archive.WriteHeader(h); err != nil {
			return err
		}
	}
	return p.walk(tree{fd}, name, wanted)
}

func (p *packer) link(t tree, leaf string, h *tar.Header) error {
	b := make([]byte, 4096)
	n, err := unix.Readlinkat(t.fd, leaf, b)
	if err != nil {
		return err
	}
	h.Typeflag, h.Linkname = tar.TypeSymlink, string(b[:n])
	if err := linkInside(h.Name, h.Linkname); err != nil {
		return fmt.Errorf("a symlink to %q: %w", h.Linkname, err)
	}
	return p.archive.WriteHeader(h)
}

func (p *packer) file(t tree, leaf string, h *tar.Header) error {
	fd, err := t.open(leaf, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), leaf)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if !info.Mode().IsRegular() || h.Size < 0 {
		return errors.New("changed while it was read")
	}
	if uint64(h.Size) > p.left {
		return errTooMuch
	}
	p.left -= uint64(h.Size)
	if err := p.archive.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(p.archive, f, h.Size)
	if n < h.Size && (err == nil || errors.Is(err, io.EOF)) {
		return errors.New("became shorter while it was read")
	}
	return err
}
