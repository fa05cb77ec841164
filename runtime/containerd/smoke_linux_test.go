package containerd

import (
	"testing"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

func TestSmoke(t *testing.T) {
	e := testEngine(t)
	info, err := e.Info(t.Context())
	t.Logf("%+v %v", info, err)
	t0 := time.Now()
	in := createNetwork(t, e, runtime.NetworkSpec{Name: "ctd-in", Internal: true})
	t.Log("net", time.Since(t0))
	t0 = time.Now()
	eg := createNetwork(t, e, runtime.NetworkSpec{Name: "ctd-eg"})
	t.Log("net", time.Since(t0), in, eg)
	t0 = time.Now()
	c1 := run(t, e, runtime.ContainerSpec{Name: "ctd-one", Networks: []runtime.NetworkAttachment{{Network: "ctd-in", Aliases: []string{"uno"}}}})
	t.Log("run", time.Since(t0))
	t0 = time.Now()
	c2 := run(t, e, runtime.ContainerSpec{Name: "ctd-two", Networks: []runtime.NetworkAttachment{{Network: "ctd-in"}, {Network: "ctd-eg"}}, Files: []runtime.File{{Path: "/hi/there", Content: []byte("x"), Mode: 0o600}}})
	t.Log("run", time.Since(t0))
	t.Logf("%+v\n%+v", c1, c2)
	for _, cmd := range []string{"ip a; ip r; cat /etc/hosts /etc/resolv.conf; ps; id; env; ls -l /hi; cat /proc/self/status | grep -E 'Cap|NoNew|Secc'", "ping -c1 -W1 uno", "nosuch"} {
		t0 = time.Now()
		out, code := sh(t, e, "ctd-two", cmd)
		t.Log("exec", time.Since(t0), code, "\n", out)
	}
	t0 = time.Now()
	if err := e.Stop(t.Context(), "ctd-one", 5*time.Second); err != nil {
		t.Error(err)
	}
	t.Log("stop", time.Since(t0))
	l, err := e.ListContainers(t.Context(), runtime.Filter{})
	t.Log(l, err)
	t0 = time.Now()
	if err := e.RemoveContainer(t.Context(), "ctd-two"); err != nil {
		t.Error(err)
	}
	t.Log("rm", time.Since(t0))
}
