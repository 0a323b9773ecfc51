package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheDiskIsWhatTheHostSaysWithinMemory(t *testing.T) {
	for line, want := range map[string]uint64{
		"quiet paddock.disk_mib=100 x": 100, "paddock.disk_mib=9999": 192, "": 192, "paddock.disk_mib=-1": 192, "paddock.disk_mib=0": 192,
	} {
		if got := diskMiB(line, 256); got != want {
			t.Errorf("%q: %d", line, got)
		}
	}
}

func TestAskedEnvironmentWins(t *testing.T) {
	env := environment([]string{"PATH=/x", "A=1"}, 0)
	if !has(env, "PATH=/x") || has(env[1:], "PATH=") || !has(env, "HOME=/root") || !has(env, "LANG=") || env[1] != "A=1" {
		t.Fatal(env)
	}
}

func TestAccounts(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/sh\nbroken\nagent:x:1000:1000::/home/agent:/bin/bash\n"
	if a, ok := findAccount(passwd, 1000); !ok || a.name != "agent" || a.home != "/home/agent" {
		t.Fatal(a, ok)
	}
	if _, ok := findAccount(passwd, 100); ok {
		t.Fatal("found")
	}
}

func TestProgramsAreFoundAsAShellWould(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "plain": 0o644} {
		if err := os.WriteFile(dir+"/"+name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=/nowhere:" + dir}
	if p, err := lookPath("run", "/", env); p != dir+"/run" || err != nil {
		t.Fatal(p, err)
	}
	if p, err := lookPath("./run", dir, env); p != dir+"/./run" || err != nil {
		t.Fatal(p, err)
	}
	for name, want := range map[string]uint32{"plain": 126, "none": 127, dir: 126, dir + "/none": 127, dir + "/run/x": 127} {
		if _, err := lookPath(name, "/", env); err == nil || startValue(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if startValue(unix.EAGAIN) != 125 {
		t.Error("a failure of ours looks like one of the program")
	}
}

func TestTheCAIsAppendedOnceAndReplacedByTheNext(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"/etc/ssl/certs", "/usr/local/share/ca-certificates"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+caBundle, []byte("public\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	id := &identity{root: root}
	id.prepare()
	for _, c := range []struct{ ca, want string }{
		{"one longer", "public\none longer\n"}, {"two\n", "public\ntwo\n"}, {"two", "public\ntwo\n"},
	} {
		if err := id.trust([]byte(c.ca)); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(root + caBundle); string(b) != c.want {
			t.Fatalf("%q", b)
		}
	}
	// Someone rebuilt the bundle: theirs is kept.
	if err := os.WriteFile(root+caBundle, []byte("rebuilt by the workload\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := id.trust([]byte("three")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(root + caBundle); string(b) != "rebuilt by the workload\nthree\n" {
		t.Fatalf("%q", b)
	}
}

func TestServfailKeepsTheQuestion(t *testing.T) {
	query := append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x01a\x00\x00\x01\x00\x01"...)
	answer := servfail(query)
	if answer[2]&0x80 == 0 || answer[3]&0x0f != 2 || !strings.HasSuffix(string(answer), string(query[4:])) || query[2] != 1 {
		t.Fatalf("%x", answer)
	}
}

func TestNoProgramGainsPrivileges(t *testing.T) {
	err := noNewPrivileges()
	if errors.Is(err, unix.ENOTSUP) {
		t.Skip("needs CGO_ENABLED=0, as the guest is built")
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // whichever thread starts it
		out, err := exec.Command("grep", "NoNewPrivs", "/proc/self/status").Output()
		if err != nil || strings.Fields(string(out))[1] != "1" {
			t.Fatal(string(out), err)
		}
	}
}
