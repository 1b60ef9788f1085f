package objstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/shardpress/shardpress/objstore"
)

// Large bytes go to a key that nobody else writes, straight from the code that
// makes them; a small object put with IfAbsent commits them.
func Example() {
	ctx := context.Background()
	b := objstore.Prefix(objstore.NewMem(), "tasks/0123")

	info, err := b.Put(ctx, "attempt-1/codes", objstore.FromWriter(func(w io.Writer) error {
		for i := range 1000 {
			if _, err := fmt.Fprintln(w, i); err != nil {
				return err
			}
		}
		return nil
	}), -1, objstore.PutOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		commit := fmt.Sprintf("%s %d\n", info.Key, info.Size)
		_, err = b.Put(ctx, "result", strings.NewReader(commit), int64(len(commit)), objstore.PutOptions{IfAbsent: true})
		fmt.Println("lost the race:", errors.Is(err, objstore.ErrExist))
	}

	r, err := b.Get(ctx, "attempt-1/codes", 20, 9)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fmt.Println(lines.Text())
	}
	for info, err := range b.List(ctx, "") {
		fmt.Println(info.Key, info.Size, err)
	}
	// Output:
	// lost the race: false
	// lost the race: true
	// 10
	// 11
	// 12
	// attempt-1/codes 3890 <nil>
	// result 21 <nil>
}
