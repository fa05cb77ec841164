package core_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
)

// dated lists every image as made at one time.
type dated struct {
	runtime.Runtime
	created time.Time
}

func (d dated) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	list, err := d.Runtime.ListImages(ctx, filter)
	for i := range list {
		list[i].Created = d.created
	}
	return list, err
}

func TestAnOlderImageGoesOnlyWhenItsDateSaysThatItIsOld(t *testing.T) {
	for name, c := range map[string]struct {
		created time.Time
		left    int
	}{
		"made two hours ago":              {time.Now().Add(-2 * time.Hour), 1},
		"made just now":                   {time.Now(), 2},
		"of a clock that was ahead":       {time.Now().Add(48 * time.Hour), 2},
		"without a date":                  {time.Time{}, 2},
		"dated like a reproducible build": {time.Unix(0, 0), 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, map[string]string{"image/Dockerfile": "FROM img\nLABEL x=1\n"})
			ensure := func() {
				plan, _ := b.plan("bottles: {dev: {dockerfile: image/Dockerfile}}\nagents: {coder: {bottle: dev}}\n", core.Wishes{})
				_, err := core.EnsureImage(t.Context(), dated{b.rt, c.created}, plan.Image, nil)
				must(t, err)
			}
			ensure()
			must(t, os.WriteFile(filepath.Join(b.dir, "image/Dockerfile"), []byte("FROM img\nLABEL x=2\n"), 0o600))
			ensure()
			list, err := b.rt.ListImages(t.Context(), runtime.Filter{Labels: map[string]string{core.LabelRole: core.RoleImage}})
			must(t, err)
			if len(list) != c.left {
				t.Errorf("%d images are left, want %d: %+v", len(list), c.left, list)
			}
		})
	}
}
