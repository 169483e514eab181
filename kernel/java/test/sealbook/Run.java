package sealbook;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Arrays;

/** Runs every public static method without parameters of the classes named; Spark's jars have no JUnit. */
public final class Run {
  private Run() {}

  public static void main(String[] classes) throws Exception {
    int failed = 0;
    for (String name : classes) {
      Method[] methods = Class.forName(name).getDeclaredMethods();
      Arrays.sort(methods, (a, b) -> a.getName().compareTo(b.getName()));
      for (Method method : methods) {
        if (method.getParameterCount() != 0 || (method.getModifiers() & 9) != 9) {
          continue; // public static only
        }
        try {
          method.invoke(null);
          System.out.println("ok " + name + "." + method.getName());
        } catch (InvocationTargetException e) {
          failed++;
          System.out.println("FAILED " + name + "." + method.getName() + ": " + e.getCause());
          e.getCause().printStackTrace(System.out);
        }
      }
    }
    System.exit(failed == 0 ? 0 : 1);
  }

  /** Fail unless it holds. */
  public static void require(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }

  /** Something that may throw. */
  @FunctionalInterface
  public interface Step {
    void run() throws Exception;
  }

  /** Fail unless the step throws this; return what it threw. */
  public static <T extends Throwable> T refused(Class<T> kind, Step step) {
    try {
      step.run();
    } catch (Throwable e) {
      if (kind.isInstance(e)) {
        return kind.cast(e);
      }
      throw new AssertionError("another exception: " + e, e);
    }
    throw new AssertionError("nothing was refused");
  }
}
