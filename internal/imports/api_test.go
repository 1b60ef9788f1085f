package imports

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// checkAPI returns one line for every place in the exported API of the packages for other people where a type of an internal package
// shows: in signatures, fields, methods, embedded types, type parameters, variables and constants, also through unexported types that
// exported ones hand out.
func checkAPI(root string) ([]string, error) {
	_, files, err := scan(root)
	if err != nil {
		return nil, err
	}
	importer := newSourceImporter(root)
	seen := map[string]bool{}
	var breaches []string
	for _, f := range files {
		if f.Test || f.Package == "." || seen[f.Package] || !matchesAny(exportedPackages(), f.Package) {
			continue
		}
		seen[f.Package] = true
		pkg, err := importer.Import(modulePath + "/" + f.Package)
		if err != nil {
			return nil, fmt.Errorf("check API of %s: %w", f.Package, err)
		}
		walk := apiWalk{pkg: pkg, seen: map[types.Type]bool{}}
		for _, name := range pkg.Scope().Names() {
			if object := pkg.Scope().Lookup(name); object.Exported() {
				walk.object(object, name)
			}
		}
		breaches = append(breaches, walk.breaches...)
	}
	sort.Strings(breaches)
	return breaches, nil
}

// apiWalk follows everything that a user of pkg can reach without naming another package.
type apiWalk struct {
	pkg      *types.Package
	seen     map[types.Type]bool
	breaches []string
}

func (w *apiWalk) object(object types.Object, trail string) {
	if name, ok := object.(*types.TypeName); ok && name.IsAlias() {
		w.visit(types.Unalias(name.Type()), trail)
		return
	}
	w.visit(object.Type(), trail)
}

func (w *apiWalk) visit(t types.Type, trail string) {
	if named, ok := t.(*types.Named); ok && w.shows(named, trail) {
		return // before the look at seen: every place is reported
	}
	if t == nil || w.seen[t] {
		return
	}
	w.seen[t] = true
	switch t := t.(type) {
	case *types.Alias:
		w.visit(types.Unalias(t), trail)
	case *types.Named:
		for arg := range t.TypeArgs().Types() {
			w.visit(arg, trail)
		}
		for param := range t.TypeParams().TypeParams() {
			w.visit(param.Constraint(), trail)
		}
		if t.Obj().Pkg() != w.pkg {
			return // judged in its own package, or not ours
		}
		for method := range t.Methods() {
			if method.Exported() {
				w.visit(method.Type(), trail+"."+method.Name())
			}
		}
		w.visit(t.Underlying(), trail)
	case *types.Pointer:
		w.visit(t.Elem(), trail)
	case *types.Slice:
		w.visit(t.Elem(), trail)
	case *types.Array:
		w.visit(t.Elem(), trail)
	case *types.Chan:
		w.visit(t.Elem(), trail)
	case *types.Map:
		w.visit(t.Key(), trail)
		w.visit(t.Elem(), trail)
	case *types.Signature:
		for param := range t.TypeParams().TypeParams() {
			w.visit(param.Constraint(), trail)
		}
		for variable := range t.Params().Variables() {
			w.visit(variable.Type(), trail)
		}
		for variable := range t.Results().Variables() {
			w.visit(variable.Type(), trail)
		}
	case *types.Struct:
		for field := range t.Fields() {
			if field.Exported() || field.Embedded() { // an embedded type hands its methods out under any name
				w.visit(field.Type(), trail+"."+field.Name())
			}
		}
	case *types.Interface:
		for method := range t.ExplicitMethods() {
			if method.Exported() {
				w.visit(method.Type(), trail+"."+method.Name())
			}
		}
		for embedded := range t.EmbeddedTypes() {
			w.visit(embedded, trail)
		}
	case *types.Union:
		for term := range t.Terms() {
			w.visit(term.Type(), trail)
		}
	case *types.TypeParam:
		w.visit(t.Constraint(), trail)
	}
}

// shows reports a type of an internal package of ours.
func (w *apiWalk) shows(t *types.Named, trail string) bool {
	owner := t.Obj().Pkg()
	if owner == nil || !internalPath(owner.Path()) {
		return false
	}
	w.breaches = append(w.breaches, fmt.Sprintf("%s: %s shows %s.%s: other people cannot name a type of an internal package",
		strings.TrimPrefix(w.pkg.Path(), modulePath+"/"), trail, strings.TrimPrefix(owner.Path(), modulePath+"/"), t.Obj().Name()))
	return true
}

// internalPath says whether the path is of our module and below a folder called internal.
func internalPath(importPath string) bool {
	rest, ours := strings.CutPrefix(importPath, modulePath+"/")
	return ours && strings.Contains("/"+rest+"/", "/internal/")
}

// sourceImporter type-checks declarations from source: packages of the module and of the standard library. Modules of other people
// are taken as empty, and type errors that follow from that are passed over: their types cannot be internal ones of ours.
type sourceImporter struct {
	root     string
	fset     *token.FileSet
	context  build.Context
	packages map[string]*types.Package
}

func newSourceImporter(root string) *sourceImporter {
	context := build.Default
	context.CgoEnabled = false
	return &sourceImporter{root: root, fset: token.NewFileSet(), context: context, packages: map[string]*types.Package{"unsafe": types.Unsafe}}
}

// Import implements types.Importer.
func (s *sourceImporter) Import(importPath string) (*types.Package, error) {
	if pkg, known := s.packages[importPath]; known {
		return pkg, nil
	}
	s.packages[importPath] = types.NewPackage(importPath, filepath.Base(importPath)) // a cycle ends here; the compiler refuses it
	var parsed []*ast.File
	name := filepath.Base(importPath)
	if dir, found := s.folder(importPath); found {
		listing, err := s.context.ImportDir(dir, 0)
		if err != nil {
			return nil, fmt.Errorf("read package %s: %w", importPath, err)
		}
		name = listing.Name
		for _, goFile := range listing.GoFiles {
			syntax, err := parser.ParseFile(s.fset, filepath.Join(dir, goFile), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, fmt.Errorf("parse package %s: %w", importPath, err)
			}
			parsed = append(parsed, syntax)
		}
	}
	if len(parsed) == 0 {
		pkg := types.NewPackage(importPath, name)
		pkg.MarkComplete()
		s.packages[importPath] = pkg
		return pkg, nil
	}
	config := types.Config{
		Importer:         s,
		IgnoreFuncBodies: true,
		FakeImportC:      true,
		Sizes:            types.SizesFor("gc", s.context.GOARCH),
		Error:            func(error) {}, // see above: what is needed of our own packages is still typed
	}
	pkg, err := config.Check(importPath, s.fset, parsed, nil)
	if pkg == nil {
		return nil, fmt.Errorf("type-check package %s: %w", importPath, err)
	}
	s.packages[importPath] = pkg
	return pkg, nil
}

// folder finds the sources of a package of the module or of the standard library.
func (s *sourceImporter) folder(importPath string) (string, bool) {
	if relative, ours := strings.CutPrefix(importPath, modulePath+"/"); ours {
		return filepath.Join(s.root, filepath.FromSlash(relative)), true
	}
	for _, parent := range []string{"src", "src/vendor"} {
		dir := filepath.Join(s.context.GOROOT, filepath.FromSlash(parent), filepath.FromSlash(importPath))
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, true
		}
	}
	return "", false
}
