package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type entry struct {
	name, content, link string
	kind                byte
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.content)), Mode: 0o4755,
			ModTime: time.Unix(1_700_000_000, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

func unpackTo(t *testing.T, root string, archive []byte) error {
	t.Helper()
	return unpackInto(root, bytes.NewReader(archive))
}

func TestAGoodTarArrivesWhole(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new/deep")
	err := unpackTo(t, root, tarOf(t, entry{name: "./", kind: tar.TypeDir}, entry{name: "d", kind: tar.TypeDir},
		entry{name: "./d/x", content: "hello"}, entry{name: "p/q/y", content: "y"}, entry{name: "d/l", kind: tar.TypeSymlink, link: "../p/q/y"}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(root + "/d/l")
	if string(b) != "y" || err != nil {
		t.Fatal(string(b), err)
	}
	info, _ := os.Stat(root + "/d/x")
	if info.Mode() != 0o755 || info.ModTime().Unix() != 1_700_000_000 {
		t.Fatal(info.Mode(), info.ModTime())
	}
}

func TestATarThatWouldLeaveItsRootFailsByName(t *testing.T) {
	for _, e := range []entry{
		{name: "/etc/evil"}, {name: "../evil"}, {name: "d/../../evil"}, {name: "d/.."}, {name: "."},
		{name: "evil", kind: tar.TypeSymlink, link: "/etc/passwd"},
		{name: "evil", kind: tar.TypeSymlink, link: ".."},
		{name: "d/evil", kind: tar.TypeSymlink, link: "../../x"},
		{name: "d/evil", kind: tar.TypeSymlink, link: "../x/../../../y"},
		{name: "evil", kind: tar.TypeLink, link: "d/x"},
		{name: "evil", kind: tar.TypeChar}, {name: "evil", kind: tar.TypeBlock}, {name: "evil", kind: tar.TypeFifo},
		{name: "out/evil"}, {name: "out/deep/evil"}, {name: "inner/evil"},
	} {
		box := t.TempDir()
		root := box + "/root"
		if err := os.MkdirAll(root+"/d", 0o755); err != nil {
			t.Fatal(err)
		}
		for name, target := range map[string]string{"out": box, "inner": "d"} {
			if err := os.Symlink(target, root+"/"+name); err != nil {
				t.Fatal(err)
			}
		}
		err := unpackTo(t, root, tarOf(t, entry{name: "good", content: "1"}, e))
		if err == nil || !strings.HasPrefix(err.Error(), e.name+": ") {
			t.Errorf("%q → %q: %v", e.name, e.link, err)
		}
		if found, _ := filepath.Glob(box + "/*"); len(found) != 1 {
			t.Errorf("%q wrote outside: %q", e.name, found)
		}
	}
}

func TestAFileIsReplacedAndNotWrittenThrough(t *testing.T) {
	box := t.TempDir()
	if err := os.WriteFile(box+"/secret", []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := box + "/root"
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string]func(string, string) error{"soft": os.Symlink, "hard": os.Link} {
		if err := link(box+"/secret", root+"/"+name); err != nil {
			t.Fatal(err)
		}
		if err := unpackTo(t, root, tarOf(t, entry{name: name, content: "new"})); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := os.ReadFile(box + "/secret"); string(b) != "kept" {
		t.Fatalf("was overwritten: %q", b)
	}
}

func TestADamagedOrCutTarFails(t *testing.T) {
	whole := tarOf(t, entry{name: "a", content: strings.Repeat("x", 5000)})
	for _, bad := range [][]byte{whole[:2000], bytes.Repeat([]byte("x"), 1024)} {
		if err := unpackTo(t, t.TempDir(), bad); err == nil {
			t.Error("was taken")
		}
	}
}

func packed(t *testing.T, root string, most uint64, globs ...string) (names []string, err error) {
	t.Helper()
	var b bytes.Buffer
	if err := packFrom(root, most, globs, &b); err != nil {
		return nil, err
	}
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func sample(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range []string{"a.txt", "src/x.py", "src/deep/y.py", "src/deep/z.txt"} {
		if err := os.MkdirAll(filepath.Dir(root+"/"+f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+"/"+f, []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOutputsAreChosenByGlob(t *testing.T) {
	root := sample(t)
	for globs, want := range map[string]string{
		"":                 "a.txt src/ src/deep/ src/deep/y.py src/deep/z.txt src/x.py",
		"*.txt":            "a.txt",
		"**/*.py":          "src/deep/y.py src/x.py",
		"src/deep":         "src/deep/ src/deep/y.py src/deep/z.txt",
		"nothing":          "",
		"a.txt src/*.py":   "a.txt src/x.py",
		"../* /etc/passwd": "",
	} {
		got, err := packed(t, root, 1<<20, strings.Fields(globs)...)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v", globs, got, err)
		}
	}
}

func TestOutputsBeyondTheLimitFailByName(t *testing.T) {
	root := sample(t)
	if _, err := packed(t, root, 5+8, "a.txt", "src/x.py"); err != nil {
		t.Fatal(err)
	}
	_, err := packed(t, root, 5+7, "a.txt", "src/x.py")
	if err == nil || !strings.HasPrefix(err.Error(), "src/x.py: ") {
		t.Fatal(err)
	}
}

func TestOutputsNeverFollowALinkOut(t *testing.T) {
	root := sample(t)
	if err := os.Symlink("/etc", root+"/etc"); err != nil {
		t.Fatal(err)
	}
	if got, err := packed(t, root, 1<<20, "etc/*"); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	if _, err := packed(t, root, 1<<20, "etc"); err == nil || !strings.HasPrefix(err.Error(), "etc: ") {
		t.Fatal(err)
	}
	if _, err := packed(t, root+"/etc", 1<<20); err == nil {
		t.Fatal("the root itself is a link")
	}
}

// publicDir is a temporary directory that any user may enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOutputsBringOnlyWhatTheWorkloadMayRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := publicDir(t)
	for name, mode := range map[string]os.FileMode{"open": 0o644, "roots": 0o600} {
		if err := os.WriteFile(root+"/"+name, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := packAsWorkload(root, 1<<20, []string{"open"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	err := packAsWorkload(root, 1<<20, []string{"roots"}, io.Discard)
	if err == nil || err.Error() != "roots: permission denied" {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(root + "/roots"); err != nil {
		t.Fatal("the agent itself stays root:", err)
	}
}
