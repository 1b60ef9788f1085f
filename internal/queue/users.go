package queue

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/shardpress/shardpress/internal/task"
)

// User may connect to a broker. Secret is the public key of an nkey, the bcrypt hash
// of a password, or "plain:" and a password.
type User struct {
	Name   string
	Role   Role
	Secret string
}

// Bounds of a file of users.
const (
	maxUsersFile  = 1 << 20
	shortestPlain = 12 // characters
)

var bcryptHash = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// ReadUsers reads a file of users, see ParseUsers.
func ReadUsers(file string) ([]User, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	users, err := ParseUsers(b)
	if err != nil {
		return nil, fmt.Errorf("read users %s: %w", file, err)
	}
	return users, nil
}

// ParseUsers reads a list of users, one a line:
//
//	NAME ROLE SECRET     # and a comment
//
// Its errors name the line and show no secret.
func ParseUsers(b []byte) ([]User, error) {
	if len(b) > maxUsersFile {
		return nil, fmt.Errorf("%w: more than %d bytes", task.ErrInvalid, maxUsersFile)
	}
	var users []User
	names, keys := map[string]int{}, map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxUsersFile+1)
	for n := 1; lines.Scan(); n++ {
		text := lines.Text()
		if i := strings.Index(text, " #"); i >= 0 {
			text = text[:i]
		}
		if text = strings.TrimSpace(text); text == "" || text[0] == '#' {
			continue
		}
		u, err := parseUser(strings.Fields(text))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", n, task.ErrInvalid, err)
		}
		if first := names[u.Name]; first > 0 {
			return nil, fmt.Errorf("line %d: %w: user %s stands in line %d already", n, task.ErrInvalid, u.Name, first)
		}
		names[u.Name] = n
		if first := keys[u.Secret]; first > 0 && u.nkey() {
			return nil, fmt.Errorf("line %d: %w: the key of user %s is that of line %d", n, task.ErrInvalid, u.Name, first)
		}
		keys[u.Secret] = n
		users = append(users, u)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", task.ErrInvalid, err)
	}
	if len(users) == 0 { // a broker with no users is open to everybody: that must not happen by an empty file
		return nil, fmt.Errorf("%w: it names no user; want lines of NAME ROLE SECRET", task.ErrInvalid)
	}
	return users, nil
}

func parseUser(fields []string) (User, error) {
	if len(fields) != 3 {
		return User{}, fmt.Errorf("it has %d words, want NAME ROLE SECRET", len(fields))
	}
	u := User{Name: fields[0], Role: Role(fields[1]), Secret: fields[2]}
	return u, u.check()
}

func (u *User) check() error {
	switch plain, isPlain := strings.CutPrefix(u.Secret, "plain:"); {
	case !task.ValidToken(u.Name):
		return fmt.Errorf("user %q: want letters, digits, - and _ only", u.Name)
	case !slices.Contains(roles(), u.Role):
		return fmt.Errorf("user %s: role %q: want coordinator, worker, workers, client or observer", u.Name, u.Role)
	case isPlain && len(plain) < shortestPlain:
		return fmt.Errorf("user %s: the password is shorter than %d characters", u.Name, shortestPlain)
	case !isPlain && !u.nkey() && !bcryptHash.MatchString(u.Secret):
		return fmt.Errorf("user %s: the secret is neither the public key of a user (U...), nor a bcrypt hash ($2...), nor plain:PASSWORD", u.Name)
	}
	return nil
}

func (u *User) nkey() bool { return nkeys.IsValidPublicUserKey(u.Secret) }

// allow lets the users in, and nobody else.
func allow(o *server.Options, users []User) error {
	if err := o.ProcessConfigString(accounts(users)); err != nil {
		return fmt.Errorf("configure users: %w", err)
	}
	secrets := map[string]string{}
	for _, u := range users {
		secrets[u.Name] = strings.TrimPrefix(u.Secret, "plain:")
	}
	for _, u := range o.Users {
		u.Password = secrets[u.Username]
	}
	return nil
}

// accounts is the part of a NATS configuration that says who may do what. Passwords
// are left out.
func accounts(users []User) string {
	var b strings.Builder
	member := func(account string) {
		b.WriteString("    users: [\n")
		for _, u := range users {
			if u.Role.account() != account {
				continue
			}
			who := fmt.Sprintf("user: %q, password: none", u.Name)
			if u.nkey() {
				who = "nkey: " + u.Secret
			}
			r := rightsOf(u.Role, u.Name)
			fmt.Fprintf(&b, "      { %s, permissions: { publish: { allow: %s }, subscribe: { allow: %s } } }\n", who, quoted(r.publish), quoted(r.subscribe))
		}
		b.WriteString("    ]\n")
	}
	list := func(name, format string, groups ...[]string) {
		fmt.Fprintf(&b, "    %s: [\n", name)
		for i, subjects := range groups {
			kind := []string{"stream", "service"}[i]
			for _, s := range subjects {
				fmt.Fprintf(&b, "      { %s: "+format+" }\n", kind, s)
			}
		}
		b.WriteString("    ]\n")
	}
	b.WriteString("accounts {\n  " + fleetAccount + " {\n    jetstream: enabled\n")
	member(fleetAccount)
	list("exports", "%q, accounts: ["+membersAccount+"]", toMembers(), services())
	list("imports", "{ account: "+membersAccount+", subject: %q }", toFleet())
	b.WriteString("  }\n  " + membersAccount + " {\n")
	member(membersAccount)
	list("exports", "%q, accounts: ["+fleetAccount+"]", toFleet())
	list("imports", "{ account: "+fleetAccount+", subject: %q }", toMembers(), services())
	b.WriteString("  }\n}\n")
	return b.String()
}

func quoted(subjects []string) string {
	q := make([]string, len(subjects))
	for i, s := range subjects {
		q[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(q, ", ") + "]"
}
