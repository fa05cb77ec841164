package gitgate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bottle-run/bottle/sidecar/config"
)

// Host is the name of the gate on the internal network.
const Host = "git-gate"

// Setting is one of git's. A name may have several values.
type Setting struct{ Name, Value string }

// Settings returns what makes git speak to the gate whenever it is given the URL of one of
// the repositories: over https, over ssh and in scp's form, with and without user, the
// usual port and .git at the end. Whatever protocol an upstream has, all are rewritten: its
// users write each. A server with a port of its own has that of its URL alone, in which
// there is no scp form, and a file just its own URL. A repository whose name merely begins
// with that of another is not taken for it, whether or not it is declared.
//
// A URL that git would rewrite to two repositories is an error that names both.
func Settings(repositories []config.GitRepository) ([]Setting, error) {
	list := []Setting{{Name: "protocol.git.allow", Value: "always"}}
	owner := map[string]string{}
	for _, r := range repositories {
		if err := config.CheckGitName(r.Name); err != nil {
			return nil, err
		}
		u, err := config.ParseGitURL(r.URL)
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", r.Name, err)
		}
		base := "url.git://" + Host + "/" + r.Name + ".git"
		for _, form := range forms(r.URL, u) {
			if other, taken := owner[form]; taken {
				return nil, fmt.Errorf("the repositories %s and %s both stand for %s: leave one out", other, r.Name, form)
			}
			owner[form] = r.Name
			// git replaces a prefix. What goes on after it has to end up below the
			// repository, where the gate has nothing: else /repo2 would become NAME2.
			for _, key := range []string{".insteadOf", ".pushInsteadOf"} {
				list = append(list, Setting{Name: base + "/" + key, Value: form}, Setting{Name: base + key, Value: form + ".git"})
			}
		}
	}
	return list, nil
}

// usual are the ports that URLs leave out.
var usual = map[string]uint16{"https": 443, "ssh": 22, "git": 9418}

// forms are the ways to write a URL, without .git at the end.
func forms(given string, u *config.GitURL) []string {
	trim := func(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "/"), ".git") }
	list := []string{trim(given), trim(u.String())}
	if u.Scheme != "file" {
		host, path := u.Host, trim(strings.TrimPrefix(u.Path, "/"))
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		user := u.User
		if user == "" {
			user = "git"
		}
		for _, scheme := range []string{"https", "ssh", "git"} {
			port := ":" + strconv.Itoa(int(usual[scheme]))
			ports := []string{"", port}
			if u.Port != usual[u.Scheme] {
				if scheme != u.Scheme {
					continue // where else the server listens is not known
				}
				ports = []string{":" + strconv.Itoa(int(u.Port))}
			}
			for _, port := range ports {
				list = append(list, scheme+"://"+host+port+"/"+path)
				if scheme != "git" {
					list = append(list, scheme+"://"+user+"@"+host+port+"/"+path)
				}
			}
		}
		if u.Port == usual[u.Scheme] {
			for _, at := range []string{"", user + "@"} {
				list = append(list, at+host+":"+path, at+host+":/"+path)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Environment returns the settings as variables, which git reads since 2.31 with no file,
// whoever runs it and wherever its home is. They add to what configuration files say. First
// is how many there are already.
func Environment(settings []Setting, first int) map[string]string {
	env := map[string]string{"GIT_CONFIG_COUNT": strconv.Itoa(first + len(settings))}
	for i, s := range settings {
		n := strconv.Itoa(first + i)
		env["GIT_CONFIG_KEY_"+n], env["GIT_CONFIG_VALUE_"+n] = s.Name, s.Value
	}
	return env
}
