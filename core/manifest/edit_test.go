package manifest

import (
	"strings"
	"testing"
)

const head = "# top\nagents: {a: {bottle: dev}} # one line\n\nbottles:\n"

func TestAnEditKeepsWhatItIsNotAbout(t *testing.T) {
	allow := func(items ...Item) Edit {
		return Edit{Keys: []string{"bottles", "dev", "egress", "allow"}, List: items}
	}
	old := func(i int) Item { return Item{Old: i} }
	fresh := func(v any) Item { return Item{Old: -1, New: v} }
	for name, tc := range map[string]struct {
		before, after string
		edit          Edit
	}{
		"an item is added to a list in block style": {
			"  dev:\n    image: x # the image\n\n    # What may leave.\n    egress:\n      # hosts\n      allow:\n        # the registry\n        - a.test # why\n        # another\n        - {host: b.test, ports: [1]}\n      # routes follow\n      routes:\n        - host: r.test\n\n    # after\n    user: robot\n",
			"  dev:\n    image: x # the image\n\n    # What may leave.\n    egress:\n      # hosts\n      allow:\n        # the registry\n        - a.test # why\n        # another\n        - {host: b.test, ports: [1]}\n        - new.test\n      # routes follow\n      routes:\n        - host: r.test\n\n    # after\n    user: robot\n",
			allow(old(0), old(1), fresh("new.test")),
		},
		"an item is added to a list in flow style": {
			"  dev: # here\n    image: x\n    egress:\n      allow: [a.test, b.test] # why\n    user: robot\n",
			"  dev: # here\n    image: x\n    egress:\n      allow: [a.test, b.test, {host: new.test, ports: [8443]}] # why\n    user: robot\n",
			allow(old(0), old(1), fresh(struct {
				Host  string
				Ports []int `yaml:",flow"`
			}{"new.test", []int{8443}})),
		},
		"an item is removed": {
			"  dev:\n    image: x\n    egress:\n      allow:\n      - a.test\n      # gone\n      - b.test\n      - c.test\n",
			"  dev:\n    image: x\n    egress:\n      allow:\n        - a.test\n        - c.test\n",
			allow(old(0), old(2)),
		},
		"the list is missing": {
			"  dev:\n    image: x\n    egress:\n      routes: [{host: r.test}]\n    # end\n    user: robot\n",
			"  dev:\n    image: x\n    egress:\n      routes: [{host: r.test}]\n      allow:\n        - new.test\n    # end\n    user: robot\n",
			allow(fresh("new.test")),
		},
		"the section is empty": {
			"  dev:\n    image: x\n    egress: {} # nothing yet\n    user: robot",
			"  dev:\n    image: x\n    egress: # nothing yet\n      allow:\n        - new.test\n    user: robot",
			allow(fresh("new.test")),
		},
		"the section is in flow style": {
			"  dev:\n    image: x\n    egress: {allow: [a.test], routes: [{host: r.test}]} # all\n",
			"  dev:\n    image: x\n    egress: {allow: [a.test, new.test], routes: [{host: r.test}]} # all\n",
			allow(old(0), fresh("new.test")),
		},
		"the whole bottle is in flow style": {
			"  # above\n  dev: {image: x, egress: {allow: [a.test]}} # here\n  other: {image: y}\n",
			"  # above\n  dev: {image: x, egress: {allow: [a.test, new.test]}} # here\n  other: {image: y}\n",
			allow(old(0), fresh("new.test")),
		},
		"the file has no newline at its end": {
			"  dev:\n    image: x\n    egress:\n      allow:\n        - a.test",
			"  dev:\n    image: x\n    egress:\n      allow:\n        - a.test\n        - new.test\n",
			allow(old(0), fresh("new.test")),
		},
		"a list over several lines": {
			"  dev:\n    image: x\n    egress:\n      allow: [\n        a.test,\n      ]\n    user: robot\n",
			"  dev:\n    image: x\n    egress:\n      allow: [a.test, new.test]\n    user: robot\n",
			allow(old(0), fresh("new.test")),
		},
		"a value": {
			"  dev:\n    image: x\n    git:\n      # main\n      proj:\n        url: https://g.test/x.git\n        push: {branches: [a]} # few\n      other: {url: https://g.test/y.git}\n",
			"  dev:\n    image: x\n    git:\n      # main\n      proj:\n        url: https://g.test/x.git\n        push: {branches: [a], force: true} # few\n      other: {url: https://g.test/y.git}\n",
			Edit{Keys: []string{"bottles", "dev", "git", "proj", "push", "force"}, Value: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, crlf := range []bool{false, true} {
				before, after := head+tc.before, head+tc.after
				if crlf {
					before, after = strings.ReplaceAll(before, "\n", "\r\n"), strings.ReplaceAll(after, "\n", "\r\n")
				}
				got, err := Apply("bottle.yaml", []byte(before), []Edit{tc.edit})
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != after {
					t.Errorf("got\n%s\nwant\n%s", got, after)
				}
			}
		})
	}
}

func TestWhatIsWrittenInAnOddWayIsLeft(t *testing.T) {
	edit := Edit{Keys: []string{"bottles", "dev", "egress", "allow"}, List: []Item{{Old: -1, New: "new.test"}}}
	for name, text := range map[string]string{
		"an alias":             head + "  base: &b {image: x}\n  dev: *b\n",
		"an anchor":            head + "  dev:\n    image: x\n    egress: &e {allow: [a.test]}\n  other: {image: y, egress: *e}\n",
		"all in one line":      "{agents: {a: {bottle: dev}}, bottles: {dev: {image: x}}}",
		"not a manifest":       "[]",
		"a scalar in between":  head + "  dev:\n    image: x\n    egress: 3\n",
		"no valid result":      head + "  dev:\n    image: x\n    dockerfile: y\n",
		"no YAML":              "\t",
		"a complex key before": "? {a: b}\n: c\n",
	} {
		if got, err := Apply("bottle.yaml", []byte(text), []Edit{edit}); err == nil {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(head + "  dev:\n    image: x\n    egress:\n      allow: [a.test]\n")
	f.Add(head + "  dev: {image: x, egress: {}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Apply("f", []byte(text), []Edit{{Keys: []string{"bottles", "dev", "egress", "allow_all"}, Value: true}})
		if err != nil {
			return
		}
		m, err := Parse("f", got)
		if err != nil || !m.Bottles["dev"].Egress.AllowAll {
			t.Errorf("%q became %q", text, got)
		}
	})
}
