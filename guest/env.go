package main

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type account struct{ name, home string }

var accounts struct {
	sync.Mutex
	known map[uint32]account
}

// accountOf reads /etc/passwd once for each uid.
func accountOf(uid uint32) account {
	accounts.Lock()
	defer accounts.Unlock()
	if a, ok := accounts.known[uid]; ok {
		return a
	}
	b, _ := os.ReadFile("/etc/passwd")
	a, ok := findAccount(string(b), uid)
	if !ok {
		return account{strconv.FormatUint(uint64(uid), 10), "/tmp"}
	}
	if accounts.known == nil {
		accounts.known = map[uint32]account{}
	}
	accounts.known[uid] = a
	return a
}

func findAccount(passwd string, uid uint32) (account, bool) {
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.Lines(passwd) {
		if f := strings.Split(line, ":"); len(f) >= 7 && f[2] == want {
			return account{f[0], f[5]}, true
		}
	}
	return account{}, false
}

// environment is what the host asked for, over defaults and the courtesy of naming the CA bundle to those who ask for it.
func environment(asked []string, uid uint32) []string {
	a := accountOf(uid)
	defaults := []string{"PATH=" + defaultPath, "HOME=" + a.home, "USER=" + a.name, "LOGNAME=" + a.name, "LANG=C.UTF-8"}
	if caKnown.Load() {
		for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"} {
			defaults = append(defaults, name+"="+caBundle)
		}
		defaults = append(defaults, "NODE_EXTRA_CA_CERTS="+caFile)
	}
	env := append(make([]string, 0, len(asked)+len(defaults)), asked...)
	for _, d := range defaults {
		if !has(asked, d[:strings.IndexByte(d, '=')+1]) {
			env = append(env, d)
		}
	}
	return env
}

func has(env []string, prefix string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, prefix) {
			return true
		}
	}
	return false
}

// lookPath finds the program as a shell would; the error is the most telling one.
func lookPath(name, cwd string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !strings.HasPrefix(name, "/") {
			name = cwd + "/" + name
		}
		return name, executable(name)
	}
	path := defaultPath
	for _, e := range env {
		if strings.HasPrefix(e, "PATH=") {
			path = e[len("PATH="):]
			break
		}
	}
	var last error = unix.ENOENT
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" || dir[0] != '/' {
			dir = cwd + "/" + dir
		}
		err := executable(dir + "/" + name)
		if err == nil {
			return dir + "/" + name, nil
		}
		if err == unix.EACCES {
			last = err
		}
	}
	return "", last
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}
