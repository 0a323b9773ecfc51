// The guest agent: PID 1 of every sandbox. It puts the root file system together, captures what wants to leave, and
// serves the host over one port. It holds no secret and no policy. When it dies, the kernel panics and the VM ends.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

const portName = "paddock.0"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, agentVersion+": runs as PID 1 of a guest only")
		os.Exit(2)
	}
	debug.SetMemoryLimit(40 << 20)
	must("mounts", earlyMounts())
	must("modules", loadModules("/m"))
	must("root", switchRoot())
	must("limits", settle())
	must("cgroups", setupCgroups())
	must("network", setupNet())
	must("capture", setupCapture())
	path, err := findPort(portName)
	must("port", err)
	l, err := openLink(path)
	must("port", err)
	id := &identity{}
	id.prepare()
	go reap()
	m := newMux(l, id)
	must("proxy", m.serveTCP())
	must("dns", m.serveDNS())
	m.run()
	must("link", os.ErrClosed)
}

// must ends the VM with a word on the console.
func must(what string, err error) {
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "paddock guest: %s: %v\n", what, err)
	time.Sleep(100 * time.Millisecond) // the console is slow
	powerOff()
	os.Exit(1)
}

func warn(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "paddock guest: %s: %v\n", what, err)
	}
}
